/** Drawn zones: the list with who is inside, one of them in figures, and the drawing of a new one. */
import { useEffect, useState } from "preact/hooks";
import type { DrawnZone, Measures } from "../client/space_frames";
import type { Wire } from "../client/wire";
import { count, decimals, duration } from "../format";
import type { MapScene } from "../map/scene";
import { Fault, isTyping, useAct } from "../operator/shell";
import { s } from "../strings";
import type { Point, VenueIndex } from "../venue";
import { FOLLOWED, type SpaceModel } from "./model";
import { boxOfZone, figuresOfSketch, shapeOfSketch, zoneId } from "./shapes";

const MEASURE_EVERY_MS = 2_000;
const MAX_CORNERS = 200;

type Props = {
  index: VenueIndex;
  model: SpaceModel;
  wire: Wire;
  live: boolean;
  level: number;
  scene: MapScene | undefined;
  chosen: string | undefined;
  onChoose: (id: string | undefined) => void;
  onLevel: (level: number) => void;
  /** Take clicks on the map from now on; undefined: no more. */
  onPicker: (take: ((point: Point) => void) | undefined) => void;
};

export function Zones(props: Props) {
  const { index, model, level, chosen } = props;
  const [drawing, setDrawing] = useState(false);
  const zones = model.zones.value;
  const zone = zones.find((one) => one.id === chosen);
  const show = (one: DrawnZone) => {
    props.onChoose(one.id);
    props.onLevel(one.level);
    props.scene?.setLevel(one.level);
    props.scene?.show(boxOfZone(one, index));
  };
  if (drawing)
    return (
      <Drawing
        {...props}
        onDone={(id) => {
          setDrawing(false);
          if (id !== undefined) props.onChoose(id);
        }}
      />
    );
  return (
    <>
      <button type="button" class="primary" disabled={!props.live} onClick={() => setDrawing(true)}>
        {s.zones.draw}
      </button>
      <Fault message={model.failure.value.zones?.message} />
      {zones.length === 0 && (
        <p class="quiet">
          {s.zones.none} {s.zones.noneNext}
        </p>
      )}
      <ul class="rows">
        {zones.map((one) => {
          const told = model.counts.value.get(one.id);
          const line = one.shape.type === "line";
          return (
            <li key={one.id}>
              <button
                type="button"
                data-zone={one.id}
                class={one.id === chosen ? "on" : ""}
                aria-expanded={one.id === chosen}
                onClick={() => show(one)}
              >
                <span dir="auto">{one.name}</span>
                <b data-inside={one.id}>{told === undefined ? "–" : count(line ? told.entries + told.exits : told.inside)}</b>
                <small>
                  {index.doc.levels[one.level]?.name}
                  {line && ` · ${s.zones.line}`}
                  {one.level !== level && ` · ${s.ways.onLevel(index.doc.levels[one.level]?.short_name ?? "")}`}
                </small>
              </button>
              {one === zone && <Figures {...props} zone={one} />}
            </li>
          );
        })}
      </ul>
      {zones.length > FOLLOWED && <p class="quiet">{s.zones.full(count(FOLLOWED))}</p>}
    </>
  );
}

function Figures({ zone, index, model, wire, live, onChoose }: Props & { zone: DrawnZone }) {
  const told = model.counts.value.get(zone.id);
  const [measured, setMeasured] = useState<Measures>();
  const [sure, setSure] = useState(false);
  const { busy, fault, act } = useAct();
  const line = zone.shape.type === "line";
  useEffect(() => {
    setMeasured(undefined);
    if (!live) return;
    let gone = false;
    const ask = () =>
      wire
        .request("measure", { venue: index.doc.id, zone: zone.id })
        .then((answer) => !gone && setMeasured(answer))
        .catch(() => undefined); // a zone drawn this moment has no figures yet; the next answer says more
    void ask();
    const timer = setInterval(ask, MEASURE_EVERY_MS);
    return () => {
      gone = true;
      clearInterval(timer);
    };
  }, [zone.id, live]);
  const figures: [string, string | undefined][] = line
    ? [
        [s.zones.forward, told && count(told.entries)],
        [s.zones.backward, told && count(told.exits)],
        [s.operator.flow, flowText(measured)],
      ]
    : [
        [s.operator.insideNow, told && count(told.inside)],
        [s.operator.entries, told && count(told.entries)],
        [s.operator.exits, told && count(told.exits)],
        [s.operator.stay, told && told.exits > 0 ? duration(told.stayed_s / told.exits) : undefined],
        [s.operator.density, told && s.operator.perM2(decimals(told.density_per_m2, 2))],
        [s.operator.service, measured && s.operator.band(measured.service, measured.waiting)],
        [s.operator.flow, flowText(measured)],
      ];
  return (
    <div class="zone-figures" data-figures={zone.id}>
      {told === undefined && <p class="quiet">{s.zones.waiting}</p>}
      <dl class="figures">
        {figures.map(([name, value]) => (
          <div key={name} class={name === s.operator.flow || name === s.operator.service ? "wide" : ""}>
            <dt>{name}</dt>
            <dd>{value ?? "–"}</dd>
          </div>
        ))}
      </dl>
      <Fault message={fault} />
      <div class="row">
        <button
          type="button"
          class={sure ? "danger" : ""}
          disabled={busy || !live}
          onBlur={() => setSure(false)}
          onClick={() => (sure ? void act(() => model.erase(zone.id)).then((done) => done && onChoose(undefined)) : setSure(true))}
        >
          {sure ? s.zones.eraseSure : s.zones.erase}
        </button>
        {measured && !line && <span class="quiet">{s.zones.ground(count(measured.ground_m2))}</span>}
      </div>
    </div>
  );
}

function flowText(measured: Measures | undefined): string | undefined {
  const [entries, exits] = [measured?.entries_per_min, measured?.exits_per_min];
  return typeof entries === "number" && typeof exits === "number" ? s.operator.perMin(count(entries), count(exits)) : undefined;
}

function Drawing(props: Props & { onDone: (id: string | undefined) => void }) {
  const { index, model, level, scene, live } = props;
  const [corners, setCorners] = useState<Point[]>([]);
  const [name, setName] = useState("");
  const { busy, fault, act } = useAct();
  useEffect(() => {
    props.onPicker((point) => setCorners((before) => (before.length < MAX_CORNERS ? [...before, point] : before)));
    const onKey = (event: KeyboardEvent) => {
      if (event.key !== "Backspace" || isTyping(event)) return;
      event.preventDefault();
      setCorners((before) => before.slice(0, -1));
    };
    addEventListener("keydown", onKey);
    return () => {
      props.onPicker(undefined);
      removeEventListener("keydown", onKey);
      scene?.setFigures("sketch", []);
    };
  }, [scene]);
  useEffect(() => setCorners([]), [level]);
  useEffect(() => scene?.setFigures("sketch", figuresOfSketch(level, corners)), [scene, corners, level]);
  const shape = shapeOfSketch(corners);
  const send = async () => {
    if (shape === undefined) return;
    const id = zoneId(name, (taken) => index.byId.has(taken) || model.zones.value.some((zone) => zone.id === taken));
    if (await act(() => model.draw({ id, name: name.trim(), level, shape }))) props.onDone(id);
  };
  return (
    <form
      class="form"
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      <p>{s.zones.drawing}</p>
      <div class="clock">
        <b data-figure="corners">{count(corners.length)}</b>
        <span>{s.zones.corners(corners.length)}</span>
      </div>
      {corners.length === 2 && <p class="quiet">{s.zones.two}</p>}
      <button type="button" disabled={corners.length === 0} onClick={() => setCorners(corners.slice(0, -1))}>
        {s.zones.undo}
      </button>
      <label>
        {s.zones.name}
        <input required maxLength={120} dir="auto" value={name} onInput={(e) => setName(e.currentTarget.value)} />
      </label>
      <Fault message={fault} />
      <div class="row">
        <button type="submit" class="primary" disabled={busy || !live || shape === undefined || name.trim() === ""}>
          {corners.length === 2 ? s.zones.count : s.zones.watch}
        </button>
        <button type="button" onClick={() => props.onDone(undefined)}>
          {s.cancel}
        </button>
      </div>
    </form>
  );
}
