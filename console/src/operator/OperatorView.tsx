/** The operator's screen: map, levels and layers, selection or run, four lines and the timeline. Owns the session and the address while shown. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Spark } from "../charts/Spark";
import { Timeline } from "../charts/Timeline";
import { openSession, type Session } from "../client/session";
import type { RequestError } from "../client/wire";
import { count, rate } from "../format";
import { MapView } from "../map/MapView";
import type { MapScene, OfferMark } from "../map/scene";
import { startSignIn } from "../signin";
import { s } from "../strings";
import { Connection, isDenied, Notice, SignIn, ThemeButton } from "../ui/parts";
import { formatView, type View } from "../url";
import type { Spot, VenueIndex } from "../venue";
import { inspect } from "../window";
import { OperatorModel, phaseOf } from "./model";
import { Rail, RunPanel } from "./Panels";
import { isTyping, Search } from "./Search";
import { Selection } from "./Selection";

type Props = { view: Extract<View, { screen: "operator" }>; index: VenueIndex; onView: (view: View) => void };
const PADDING = { top: 76, right: 368, bottom: 212, left: 272 };
const TABLET = { top: 76, right: 308, bottom: 212, left: 236 };
const NARROW = { top: 76, right: 24, bottom: 212, left: 24 };

/** The level that a newcomer looks at: where people come in, else the lowest at or above ground. */
export function firstLevel(index: VenueIndex): number {
  const entrance = index.doc.entrances.find((e) => e.kind === "pedestrian");
  if (entrance) return index.levelIndex.get(entrance.level_id) ?? 0;
  return Math.max(
    0,
    index.doc.levels.findIndex((l) => l.ordinal >= 0),
  );
}

export function OperatorView({ view, index, onView }: Props) {
  const [session, setSession] = useState<Session>();
  const [model, setModel] = useState<OperatorModel>();
  const [failure, setFailure] = useState<RequestError>();
  const [scene, setScene] = useState<MapScene>();
  const [inView, setInView] = useState<[number, number]>([0, 0]);
  const latest = useRef(view);
  latest.current = view;
  const level = Math.min(view.level ?? firstLevel(index), index.doc.levels.length - 1);
  const selected = view.selected === undefined ? undefined : index.byId.get(view.selected);
  const go = (change: Partial<Props["view"]>) => onView({ ...latest.current, ...change });
  const state = session?.state.value;
  const live = state?.kind === "live";

  useEffect(() => {
    let open: Session | undefined;
    let fed: OperatorModel | undefined;
    let gone = false;
    openSession("operator", view.tenant, index.doc.id)
      .then((fresh) => {
        if (gone) return fresh.wire.close();
        open = fresh;
        fed = new OperatorModel(fresh.wire, index.doc.id);
        setSession(fresh);
        setModel(fed);
      })
      .catch((error: RequestError) => setFailure(error));
    return () => {
      gone = true;
      fed?.close();
      open?.wire.close();
    };
  }, [view.tenant, index]);

  useEffect(() => {
    if (live) model?.refresh().catch((error: RequestError) => error.code === "forbidden" && setFailure(error));
    scene?.setStale(state?.kind === "lost" || state?.kind === "stopped");
  }, [live, state?.kind, scene, model]);

  // One level's dots and density at a time.
  useEffect(() => {
    if (session === undefined || scene === undefined) return;
    const { wire } = session;
    scene.setLevel(level);
    const off = [
      wire.on("dots", (frame) => frame.venue === index.doc.id && scene.takeDots(frame)),
      wire.on("density", (frame) => frame.venue === index.doc.id && scene.takeDensity(frame)),
      wire.subscribe(`venue/${index.doc.id}/dots/${level}`, 2),
      wire.subscribe(`venue/${index.doc.id}/density/${level}`, 1),
    ];
    return () => {
      for (const stop of off) stop();
    };
  }, [session, scene, level]);
  useEffect(() => inspect({ scene, shopper: undefined }), [scene]);
  useEffect(() => scene?.setLayers(view.layers), [scene, view.layers]);
  useEffect(() => scene?.select(selected), [scene, selected]);

  const offers = [...(model?.offers.value.values() ?? [])];
  const tick = model?.tick.value ?? 0;
  const marks = useMemo(() => {
    const out: OfferMark[] = [];
    for (const offer of offers) {
      if (phaseOf(offer, tick) !== "active") continue;
      const anchor = index.anchorOf(offer.unit_id);
      if (anchor) out.push({ ...anchor, radiusM: offer.audience.type === "within" ? offer.audience.radius_m : undefined, flash: offer.flash });
    }
    return out;
  }, [model?.offers.value, Math.floor(tick / 10)]);
  useEffect(() => scene?.setOffers(marks), [scene, marks]);

  const choose = (spot: Spot) => {
    go({ level: spot.level, selected: spot.id });
    if (scene) {
      scene.setLevel(spot.level);
      scene.centre(spot.centre, Math.max(scene.camera.zoom, 3.2));
    }
  };

  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey) return;
      if (/^[1-9]$/.test(event.key) && Number(event.key) <= index.doc.levels.length) go({ level: Number(event.key) - 1 });
      else if (event.key === "Escape") go({ selected: undefined });
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [index]);

  const timer = useRef(0);
  if (isDenied(state, failure)) {
    return (
      <main class="centre">
        <SignIn
          onBack={formatView({ screen: "start" })}
          onPassword={() => void startSignIn(view.tenant)}
          onToken={(token) => {
            session?.useToken(token);
            setFailure(undefined);
            session?.wire.renew();
          }}
        />
      </main>
    );
  }
  if (failure) {
    return (
      <main class="centre">
        <Notice alert title={s.states.failed} next={failure.message}>
          <button type="button" class="primary" onClick={() => location.reload()}>
            {s.retry}
          </button>
          <a class="button" href="#/">
            {s.back}
          </a>
        </Notice>
      </main>
    );
  }
  const series = model?.series.value;
  return (
    <main class={`operator ${state?.kind === "lost" || state?.kind === "stopped" ? "stale" : ""}`}>
      <h1 class="hidden">{s.operator.title(index.doc.name)}</h1>
      <MapView
        index={index}
        level={level}
        layers={view.layers}
        padding={innerWidth > 1100 ? PADDING : innerWidth > 700 ? TABLET : NARROW}
        camera={view.camera}
        label={s.map.label(index.doc.name, index.doc.levels[level]!.name)}
        onScene={setScene}
        onPick={(spot) => go({ selected: spot?.id })}
        onScreen={(n, weight) => setInView((before) => (before[0] === n && before[1] === weight ? before : [n, weight]))}
        onCamera={(camera) => {
          clearTimeout(timer.current);
          timer.current = setTimeout(() => go({ camera }), 250) as unknown as number;
        }}
      />
      <header class="panel top">
        <a href="#/" class="brand" aria-label={s.back} title={s.back}>
          ‹
        </a>
        <div class="venue">
          <b dir="auto">{index.doc.name}</b>
          {state && session && <Connection state={state} lastHeard={session.wire.lastHeard} onRetry={() => session.wire.retry()} />}
        </div>
        <Search index={index} onChoose={choose} />
        <a class="button" href={formatView({ screen: "ar", tenant: view.tenant, venue: view.venue, level })}>
          {s.ar.open}
        </a>
        <ThemeButton />
      </header>
      {state?.kind === "stopped" && (
        <div class="banner" role="alert">
          <b>{s.states.stopped}</b> <span>{state.message}</span>
          <button type="button" onClick={() => session?.wire.retry()}>
            {s.retry}
          </button>
        </div>
      )}
      {model && (
        <>
          <Rail
            index={index}
            model={model}
            level={level}
            layers={view.layers}
            inView={inView[0]}
            field={inView[1]}
            onLevel={(next) => go({ level: next })}
            onLayers={(layers) => go({ layers })}
          />
          {selected && session ? (
            <Selection
              key={selected.id}
              spot={selected}
              index={index}
              model={model}
              wire={session.wire}
              live={live}
              onClose={() => go({ selected: undefined })}
            />
          ) : (
            <RunPanel model={model} index={index} onSelect={choose} />
          )}
        </>
      )}
      <section class="panel strip" aria-label={s.operator.run}>
        {series && (
          <div class="sparks">
            <Spark label={s.operator.strip.inside} unit={s.operator.units.inside} series={series.inside} show={count} />
            <Spark label={s.operator.strip.pushes} unit={s.operator.units.perS} series={series.pushes} show={rate} />
            <Spark label={s.operator.strip.payments} unit={s.operator.units.perS} series={series.payments} show={rate} />
            <Spark label={s.operator.strip.tick} unit={s.operator.units.ms} series={series.tickMs} show={rate} />
          </div>
        )}
        <Timeline
          offers={offers}
          tick={tick}
          onSelect={(offer) => {
            const spot = index.byId.get(offer.unit_id);
            if (spot) choose(spot);
          }}
        />
      </section>
    </main>
  );
}
