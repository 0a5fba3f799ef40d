/** The operator's screen: map, levels and layers, one panel at the side, four lines and the timeline. Owns the session and the address while shown. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Spark } from "../charts/Spark";
import { Timeline } from "../charts/Timeline";
import type { RequestError, Wire } from "../client/wire";
import { count, rate } from "../format";
import { MapView } from "../map/MapView";
import type { MapScene, OfferMark } from "../map/scene";
import { Edits } from "../space/Edits";
import { SpaceModel } from "../space/model";
import { Parking } from "../space/Parking";
import { figuresOfZones, heatOf, pointText } from "../space/shapes";
import { Ways } from "../space/Ways";
import { Zones } from "../space/Zones";
import { s } from "../strings";
import { ThemeButton } from "../ui/parts";
import { formatView, TOOLS, type View } from "../url";
import type { Point, Spot, VenueIndex } from "../venue";
import { inspect } from "../window";
import { OperatorModel, phaseOf } from "./model";
import { Rail, RunPanel } from "./Panels";
import { Search } from "./Search";
import { Selection } from "./Selection";
import { Surge } from "./Surge";
import { blocked, firstLevel, Side, TopBar, useKeys, useOperator } from "./shell";

type Props = { view: Extract<View, { screen: "operator" }>; index: VenueIndex; onView: (view: View) => void; onEdited: () => void };
const PADDING = { top: 76, right: 368, bottom: 212, left: 272 };
const TABLET = { top: 76, right: 308, bottom: 212, left: 236 };
const NARROW = { top: 76, right: 24, bottom: 212, left: 24 };
const HEAT_EVERY_MS = 5_000;

/** What the screen knows: the run, and the venue's space. */
class Knowledge {
  readonly run: OperatorModel;
  readonly space: SpaceModel;
  constructor(wire: Wire, venue: string) {
    this.run = new OperatorModel(wire, venue);
    this.space = new SpaceModel(wire, venue);
  }
  async refresh(): Promise<void> {
    await Promise.all([this.run.refresh(), this.space.refresh()]);
  }
  close(): void {
    this.run.close();
    this.space.close();
  }
}
const know = (wire: Wire, venue: string) => new Knowledge(wire, venue);

export function OperatorView({ view, index, onView, onEdited }: Props) {
  const operator = useOperator(view.tenant, index.doc.id, know);
  const { session, model, state, live, stale, setFailure } = operator;
  const [scene, setScene] = useState<MapScene>();
  const [inView, setInView] = useState<[number, number]>([0, 0]);
  const [zone, setZone] = useState<string>();
  const [heat, setHeat] = useState<{ most: number; since?: number | undefined }>();
  const [taking, setTaking] = useState(false);
  const picker = useRef<((point: Point) => void) | undefined>(undefined);
  const latest = useRef(view);
  latest.current = view;
  const drawn = useRef(scene);
  drawn.current = scene;
  const level = Math.min(view.level ?? firstLevel(index), index.doc.levels.length - 1);
  const selected = view.selected === undefined ? undefined : index.byId.get(view.selected);
  const go = (change: Partial<Props["view"]>) => onView({ ...latest.current, ...change });
  const run = model?.run;
  const space = model?.space;

  useEffect(() => {
    if (live) model?.refresh().catch((error: RequestError) => error.code === "forbidden" && setFailure(error));
    scene?.setStale(stale);
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
  useEffect(() => scene?.setTaking(taking), [scene, taking]);
  const zones = space?.zones.value;
  useEffect(
    () => scene?.setFigures("zones", figuresOfZones(zones ?? [], view.tool === "zones" ? zone : undefined, index)),
    [scene, zones, zone, view.tool, index],
  );
  const showsHeat = view.layers.includes("heat");
  useEffect(() => {
    setHeat(undefined);
    if (session === undefined || scene === undefined || !live || !showsHeat) return;
    let gone = false;
    const ask = () =>
      session.wire
        .request("get_heat", { venue: index.doc.id, level })
        .then((frame) => {
          if (gone) return;
          const found = heatOf(frame);
          scene.setHeat(found);
          setHeat({ most: found.most, since: frame.since_tick ?? undefined });
        })
        .catch(() => undefined); // the next one says more; a lost connection is told of elsewhere
    void ask();
    const timer = setInterval(ask, HEAT_EVERY_MS);
    return () => {
      gone = true;
      clearInterval(timer);
      scene.setHeat(undefined);
    };
  }, [session, scene, live, showsHeat, level]);
  useEffect(() => inspect({ scene, shopper: undefined }), [scene]);
  useEffect(() => scene?.setLayers(view.layers), [scene, view.layers]);
  useEffect(() => scene?.select(selected), [scene, selected]);

  const offers = [...(run?.offers.value.values() ?? [])];
  const tick = run?.tick.value ?? 0;
  const marks = useMemo(() => {
    const out: OfferMark[] = [];
    for (const offer of offers) {
      if (phaseOf(offer, tick) !== "active") continue;
      const anchor = index.anchorOf(offer.unit_id);
      if (anchor) out.push({ ...anchor, radiusM: offer.audience.type === "within" ? offer.audience.radius_m : undefined, flash: offer.flash });
    }
    return out;
  }, [run?.offers.value, Math.floor(tick / 10), index]);
  useEffect(() => scene?.setOffers(marks), [scene, marks]);

  const choose = (spot: Spot) => {
    go({ level: spot.level, selected: spot.id, ...(latest.current.tool === "edits" ? {} : { tool: undefined }) });
    if (scene) {
      scene.setLevel(spot.level);
      scene.centre(spot.centre, Math.max(scene.camera.zoom, 3.2));
    }
  };

  /** Of a way: an end that is not chosen yet, else the goal. */
  const setEnd = (end: string) => go(latest.current.from === undefined ? { from: end } : { to: end });
  const pick = (point: Point, spot = index.at(level, point[0], point[1])) => {
    if (picker.current) picker.current(point);
    else if (view.tool === "ways") setEnd(spot?.kind === "unit" && index.anchorOf(spot.id) ? spot.id : pointText(level, point));
    else if (view.tool === "edits") go({ selected: index.at(level, point[0], point[1], true)?.id });
    else go({ selected: spot?.id, tool: undefined });
  };
  const close = () => {
    drawn.current?.chooseDot(undefined);
    go({ selected: undefined });
  };
  useKeys(index.doc.levels.length, (next) => go({ level: next }), close);

  const timer = useRef(0);
  const barred = blocked(operator);
  if (barred) return barred;
  const series = run?.series.value;
  const tools = <Tools tool={view.tool} onTool={(tool) => go({ tool, ...(tool === undefined ? { selected: undefined } : {}) })} />;
  return (
    <main class={`operator ${stale ? "stale" : ""} ${taking || view.tool === "ways" ? "taking" : ""}`}>
      <h1 class="hidden">{s.operator.title(index.doc.name)}</h1>
      <MapView
        index={index}
        level={level}
        layers={view.layers}
        padding={innerWidth > 1100 ? PADDING : innerWidth > 700 ? TABLET : NARROW}
        camera={view.camera}
        label={s.map.label(index.doc.name, index.doc.levels[level]!.name)}
        onScene={setScene}
        onPick={(spot, point) => pick(point, spot)}
        onKey={(event) => {
          if (event.key !== "Enter" || scene === undefined || !(taking || view.tool === "ways")) return false;
          pick(scene.middle());
          return true;
        }}
        onScreen={(n, weight) => setInView((before) => (before[0] === n && before[1] === weight ? before : [n, weight]))}
        onCamera={(camera) => {
          clearTimeout(timer.current);
          timer.current = setTimeout(() => go({ camera }), 250) as unknown as number;
        }}
      />
      <TopBar operator={operator} back="#/" backLabel={s.back} title={index.doc.name}>
        <Search index={index} label={s.operator.search} shortcut onChoose={choose} />
        <a class="button" href={formatView({ screen: "ar", tenant: view.tenant, venue: view.venue, level })}>
          {s.ar.open}
        </a>
        <ThemeButton />
      </TopBar>
      {run && space && session && (
        <>
          <Rail
            index={index}
            model={run}
            level={level}
            layers={view.layers}
            inView={inView[0]}
            field={inView[1]}
            heat={showsHeat ? heat : undefined}
            onLevel={(next) => go({ level: next })}
            onLayers={(layers) => go({ layers })}
          />
          {view.tool === "ways" ? (
            <Side label={s.ways.title} above={tools}>
              <Ways
                index={index}
                model={space}
                wire={session.wire}
                live={live}
                level={level}
                scene={scene}
                from={view.from}
                to={view.to}
                onEnds={(ends) => go(ends)}
                onLevel={(next) => go({ level: next })}
              />
            </Side>
          ) : view.tool === "zones" ? (
            <Side label={s.zones.title} above={tools}>
              <Zones
                index={index}
                model={space}
                wire={session.wire}
                live={live}
                level={level}
                scene={scene}
                chosen={zone}
                onChoose={setZone}
                onLevel={(next) => go({ level: next })}
                onPicker={(take) => {
                  picker.current = take;
                  setTaking(take !== undefined);
                }}
              />
            </Side>
          ) : view.tool === "parking" ? (
            <Side label={s.parking.title} above={tools}>
              <Parking venue={index.doc.id} wire={session.wire} live={live} />
            </Side>
          ) : view.tool === "edits" ? (
            <Side label={s.edits.title} above={tools}>
              <Edits index={index} model={space} live={live} chosen={selected} onChoose={choose} onEdited={onEdited} />
            </Side>
          ) : view.tool === "surge" ? (
            <Side label={s.surge.title} above={tools}>
              <Surge tenant={view.tenant} venue={index.doc.id} kind={index.doc.kind} live={live} />
            </Side>
          ) : selected ? (
            <Selection
              key={selected.id}
              spot={selected}
              index={index}
              model={run}
              wire={session.wire}
              live={live}
              above={tools}
              onClose={() => go({ selected: undefined })}
              onTool={(tool) => go(tool === "ways" ? { tool, from: selected.id, to: undefined } : { tool })}
            />
          ) : (
            <RunPanel model={run} index={index} above={tools} onSelect={choose} />
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

/** Which panel stands at the side. */
function Tools({ tool, onTool }: { tool: Props["view"]["tool"]; onTool: (tool: Props["view"]["tool"]) => void }) {
  return (
    <nav class="tools" aria-label={s.operator.tools}>
      {([undefined, ...TOOLS] as const).map((one) => (
        <button type="button" key={one ?? "run"} data-tool={one ?? "run"} aria-pressed={one === tool} onClick={() => onTool(one)}>
          {s.operator.tool[one ?? "run"]}
        </button>
      ))}
    </nav>
  );
}
