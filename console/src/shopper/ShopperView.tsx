/** The shopper's screen, phone first: the map centred on me, what is near in a sheet, offers as toasts, the wallet one tap away. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { Push, Store } from "../client/frames";
import { openSession, type Session } from "../client/session";
import type { RequestError } from "../client/wire";
import { count, decimals, duration, metres, money, percent } from "../format";
import { MapView } from "../map/MapView";
import { regionOf } from "../map/region";
import type { MapScene } from "../map/scene";
import { firstLevel } from "../operator/shell";
import { s } from "../strings";
import { Connection, Notice, ThemeButton } from "../ui/parts";
import type { View } from "../url";
import type { VenueIndex } from "../venue";
import { inspect } from "../window";
import { ConsentSheet, Withdrawn } from "./Consent";
import { type Fix, RADIUS_M, ShopperModel } from "./model";
import { Toast } from "./Toast";
import { Wallet } from "./Wallet";
import { seconds } from "./walk";

type Props = { view: Extract<View, { screen: "shopper" }>; index: VenueIndex; onView: (view: View) => void };
const PADDING = () => ({ top: 64, right: 0, bottom: Math.round(innerHeight * 0.4), left: 0 });
const LAYERS = ["density", "labels", "offers"] as const;
const ZOOM = 3.6;

export function ShopperView({ view, index, onView }: Props) {
  const [session, setSession] = useState<Session>();
  const [model, setModel] = useState<ShopperModel>();
  const [scene, setScene] = useState<MapScene>();
  const [failure, setFailure] = useState<RequestError>();
  const [lost, setLost] = useState<string>();
  const [wallet, setWallet] = useState(false);
  const [tab, setTab] = useState<"near" | "saved">("near");
  const [tall, setTall] = useState(false);
  const follow = useRef(true);
  const state = session?.state.value;
  const live = state?.kind === "live";
  const level = model?.level.value ?? firstLevel(index);
  const walker = model?.walker.value;
  const fix = model?.fix.value;

  useEffect(() => {
    let open: Session | undefined;
    let fed: ShopperModel | undefined;
    let gone = false;
    openSession("shopper", view.tenant, index.doc.id)
      .then((fresh) => {
        if (gone) return fresh.wire.close();
        open = fresh;
        fed = new ShopperModel(fresh.wire, index);
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
    if (live) model?.refresh().catch(() => undefined);
    scene?.setStale(state?.kind === "lost" || state?.kind === "stopped");
  }, [live, state?.kind, model, scene]);

  const welcome = state?.kind === "live" ? state.welcome : undefined;
  useEffect(() => {
    if (welcome !== undefined) model?.stand(welcome.consent);
  }, [welcome, model]);

  useEffect(() => inspect({ scene, shopper: model }), [scene, model]);

  // Walk in once for each entrance asked for, when it may be known; a reconnection goes on where I was.
  const consent = model?.consent.value ?? "unknown";
  const mayKnow = consent === "free" || consent === "given";
  useEffect(() => {
    if (model === undefined || view.location === undefined || !mayKnow) return;
    setLost(undefined);
    model.walkIn(view.location).catch((error: RequestError) => setLost(error.message));
  }, [model, view.location, mayKnow]);

  useEffect(() => {
    if (model === undefined) return;
    let before = performance.now();
    const timer = setInterval(() => {
      const now = performance.now();
      model.beat(Math.min(1, (now - before) / 1000), now);
      before = now;
    }, 100);
    return () => clearInterval(timer);
  }, [model]);

  useEffect(() => {
    if (scene === undefined || session === undefined) return;
    scene.setLevel(level);
    const off = [
      session.wire.on("density", (frame) => frame.venue === index.doc.id && scene.takeDensity(frame)),
      session.wire.subscribe(`venue/${index.doc.id}/density/${level}`, 1),
    ];
    return () => {
      for (const stop of off) stop();
    };
  }, [scene, session, level]);

  const here = useRef<string>("");
  useEffect(() => {
    if (scene === undefined || walker === undefined) return;
    const region = fix && regionOf(walker.point, fix.cov);
    scene.setMe({ level, point: walker.point, headingRad: walker.headingRad, radiusM: fix?.radiusM ?? RADIUS_M, region, target: walker.target });
    const arrived = `${view.location}|${level}`;
    if (here.current !== arrived) {
      here.current = arrived;
      follow.current = true;
      scene.centre(walker.point, ZOOM);
    } else if (follow.current) scene.centre(walker.point);
  }, [scene, walker, level, fix]);

  const offers = model?.offers.value;
  useEffect(() => {
    if (scene === undefined || model === undefined) return;
    const units = new Set(model.stores.value.filter((store) => store.offers.length > 0).map((store) => store.unit_id));
    scene.setOffers([...units].flatMap((unit) => index.anchorOf(unit) ?? []).map((anchor) => ({ ...anchor, flash: false })));
  }, [scene, model?.stores.value]);

  if (failure || state?.kind === "stopped") {
    return (
      <main class="centre">
        <Notice
          alert
          title={failure ? s.states.failed : s.states.stopped}
          next={failure?.message ?? (state?.kind === "stopped" ? state.message : s.states.failedNext)}
        >
          <button type="button" class="primary" onClick={() => (session ? session.wire.retry() : location.reload())}>
            {s.retry}
          </button>
          <a class="button" href="#/">
            {s.back}
          </a>
        </Notice>
      </main>
    );
  }
  if (model !== undefined && (consent === "needed" || consent === "withdrawn")) {
    return (
      <main class="centre">
        {consent === "needed" ? (
          <ConsentSheet venue={index.doc.name} onAgree={() => model.agree(s.consent.id)} />
        ) : (
          <Withdrawn onAgain={() => model.askAgain()} />
        )}
      </main>
    );
  }
  if (view.location === undefined || lost !== undefined || model?.left.value) {
    const title = model?.left.value ? s.shopper.left : lost !== undefined ? s.shopper.walkInFailed : s.shopper.chooseEntrance;
    return (
      <main class="centre">
        <Notice title={title} next={lost !== undefined ? s.shopper.walkInFailedNext : index.doc.name}>
          <ul class="entrances">
            {index.doc.entrances.map((entrance) => (
              <li key={entrance.id}>
                <button
                  type="button"
                  onClick={() => {
                    setLost(undefined);
                    if (entrance.code === view.location) model?.walkIn(entrance.code).catch((error: RequestError) => setLost(error.message));
                    onView({ ...view, location: entrance.code });
                  }}
                >
                  <span dir="auto">{entrance.name}</span>
                  <small>{index.doc.levels[index.levelIndex.get(entrance.level_id) ?? 0]?.name}</small>
                </button>
              </li>
            ))}
            {index.doc.entrances.length === 0 && <li class="quiet">{s.shopper.noEntrances}</li>}
          </ul>
          <a class="button" href="#/">
            {s.back}
          </a>
        </Notice>
      </main>
    );
  }

  const place = walker && index.at(level, walker.point[0], walker.point[1]);
  const levelName = index.doc.levels[level]?.name ?? "";
  const walkTo = (store: Store) => {
    follow.current = true;
    model?.walkTo(index.anchorOf(store.unit_id)?.point ?? [store.x_m, store.y_m]);
  };
  const balance = Object.entries(model?.balances.value ?? {})[0];
  const top = model?.toasts.value.at(-1);
  return (
    <main class={`shopper ${state?.kind === "lost" ? "stale" : ""} ${tall ? "tall" : ""}`}>
      <h1 class="hidden">{s.shopper.title(index.doc.name)}</h1>
      <MapView
        index={index}
        level={level}
        layers={LAYERS}
        padding={PADDING()}
        corner="shopper"
        label={s.shopper.map(index.doc.name)}
        onScene={setScene}
        onPick={(_spot, point) => {
          follow.current = true;
          model?.walkTo(point);
        }}
        onCamera={() => undefined}
        onKey={(event) => {
          const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
          if (way === undefined) return false;
          event.preventDefault();
          follow.current = true;
          model?.nudge(way[0]!, way[1]!);
          return true;
        }}
      />
      <header class="panel top">
        <a href="#/" class="brand" aria-label={s.back}>
          ‹
        </a>
        <div class="venue">
          <b dir="auto">{index.doc.name}</b>
          {state && session && <Connection state={state} lastHeard={session.wire.lastHeard} onRetry={() => session.wire.retry()} />}
        </div>
        <ThemeButton />
        <button type="button" class="wallet-button" onClick={() => setWallet(true)} aria-label={s.shopper.wallet}>
          {balance ? money(balance[1], balance[0]) : s.shopper.wallet}
        </button>
      </header>
      <div class="toasts" aria-live="polite">
        {top && model && session && (
          <Toast
            key={top.id}
            push={top}
            offer={offers?.get(top.offer)}
            index={index}
            onShown={() => session.wire.ack(top.id)}
            onDismiss={() => model.dismiss(top)}
            onSave={() => model.save(top)}
          />
        )}
      </div>
      <section class="panel sheet" aria-label={s.shopper.near}>
        <button type="button" class="grab" aria-label={tall ? s.close : s.shopper.near} aria-expanded={tall} onClick={() => setTall(!tall)}>
          <i aria-hidden="true" />
        </button>
        <div class="where">
          <b dir="auto" data-figure="place">
            {walker ? (place?.name ?? levelName) : s.states.connecting}
          </b>
          <span class="quiet">
            {place ? `${levelName} · ` : ""}
            {[
              model?.crowd.value === undefined ? undefined : s.shopper.crowd[model.crowd.value],
              fix ? s.shopper.byRadio(aboutM(fix)) : s.shopper.hint,
            ]
              .filter((part) => part !== undefined)
              .map((part, i) => (i === 0 ? capital(part) : part))
              .join(" · ")}
          </span>
        </div>
        {model && model.ways.value.length > 0 && (
          <div class="ways">
            {model.ways.value.map((way) => (
              <button type="button" key={`${way.connector.id}-${way.level}`} onClick={() => model.take(way)}>
                {way.level > level ? "↑" : "↓"} {s.shopper.levelTo(index.doc.levels[way.level]?.name ?? "")} · {s.shopper.by[way.connector.kind]}
              </button>
            ))}
          </div>
        )}
        <div class="tabs" role="tablist">
          <button type="button" role="tab" aria-selected={tab === "near"} onClick={() => setTab("near")}>
            {s.shopper.near}
          </button>
          <button type="button" role="tab" aria-selected={tab === "saved"} onClick={() => setTab("saved")}>
            {s.shopper.saved} {model && model.saved.value.length > 0 ? count(model.saved.value.length) : ""}
          </button>
        </div>
        <div class="list" role="tabpanel" aria-label={tab === "near" ? s.shopper.near : s.shopper.saved}>
          {tab === "near" ? (
            <NearList stores={model?.stores.value} model={model} index={index} onWalk={walkTo} />
          ) : (
            <SavedList saved={model?.saved.value ?? []} index={index} />
          )}
          {tab === "near" && walker && (
            <footer>
              <span class="quiet" data-figure="radius">
                {fix ? howSure(fix, index) : s.shopper.radius(count(RADIUS_M))}
              </span>
              {consent === "given" && (
                <button type="button" class="link" onClick={() => model?.withdraw().catch((error: RequestError) => setLost(error.message))}>
                  {s.consent.withdraw}
                </button>
              )}
              <button type="button" class="link" onClick={() => model?.leave().catch((error: RequestError) => setLost(error.message))}>
                {s.shopper.leave}
              </button>
            </footer>
          )}
        </div>
      </section>
      {wallet && model && <Wallet model={model} live={live} onClose={() => setWallet(false)} />}
    </main>
  );
}

/** A level less probable than this is not named. */
const LEAST_LEVEL = 0.05;

const aboutM = (fix: Fix) => decimals(fix.radiusM, fix.radiusM < 10 ? 1 : 0);

/** How far off the dot may be, and on which levels, the likeliest first. */
function howSure(fix: Fix, index: VenueIndex): string {
  if (fix.state !== "located" && fix.state !== "repeated") return s.shopper.listening;
  const levels = fix.levels
    .map((p, i) => ({ p, name: index.doc.levels[i]?.name ?? "" }))
    .filter(({ p }) => p >= LEAST_LEVEL)
    .sort((a, b) => b.p - a.p)
    .map(({ p, name }) => `${name} ${percent(p)}`);
  return s.shopper.found(aboutM(fix), levels.join(", "));
}

const capital = (text: string) => text.charAt(0).toLocaleUpperCase() + text.slice(1);

function NearList({
  stores,
  model,
  index,
  onWalk,
}: {
  stores: Store[] | undefined;
  model: ShopperModel | undefined;
  index: VenueIndex;
  onWalk: (store: Store) => void;
}) {
  if (stores === undefined || model === undefined) return null;
  if (stores.length === 0) return model.walker.value ? <p class="quiet">{s.shopper.noStores}</p> : null;
  const [x, y] = model.walker.value?.point ?? [0, 0];
  const inside = index.at(model.level.value, x, y)?.id;
  return (
    <ul class="stores">
      {stores.map((store) => {
        const d = Math.hypot(store.x_m - x, store.y_m - y);
        const titles = store.offers.map((id) => model.offers.value.get(id)?.title).filter((t) => t !== undefined);
        return (
          <li key={store.unit_id} data-store={store.unit_id}>
            <div>
              <b dir="auto">{store.name}</b>
              <span class="quiet">
                {store.category} · {store.unit_id === inside ? s.shopper.here : s.shopper.away(metres(d), duration(Math.max(60, seconds(d))))}
              </span>
              {titles.map((title) => (
                <em key={title} dir="auto">
                  {title}
                </em>
              ))}
            </div>
            {store.unit_id !== inside && model.fix.value === undefined && (
              <button type="button" aria-label={`${s.shopper.walk}: ${store.name}`} onClick={() => onWalk(store)}>
                {s.shopper.walk}
              </button>
            )}
          </li>
        );
      })}
    </ul>
  );
}

function SavedList({ saved, index }: { saved: Push[]; index: VenueIndex }) {
  if (saved.length === 0) return <p class="quiet">{s.shopper.noSaved}</p>;
  return (
    <ul class="stores">
      {saved.map((push) => (
        <li key={push.id}>
          <div>
            <b dir="auto">{push.title}</b>
            <span class="quiet" dir="auto">
              {index.byId.get(push.unit)?.name ?? push.unit}
            </span>
            {push.text && <p dir="auto">{push.text}</p>}
          </div>
        </li>
      ))}
    </ul>
  );
}
