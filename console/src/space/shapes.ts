/** Ways, drawn zones and edits as things to draw and to say: pure functions of the frames and the venue. Metres in the venue frame. */
import { f4 } from "../client/codec";
import type { DrawnZone, HeatFrame, LiveEdit, RouteIs, Rule, Way, Where, ZoneShape } from "../client/space_frames";
import type { Grid } from "../map/field";
import type { Figure } from "../map/figures";
import { s } from "../strings";
import { boundsOf, type MultiPolygon, middleOf, type Point, type VenueIndex } from "../venue";

const POINT = /^@(\d{1,3}),(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?)$/;
const ID_LENGTH = 60;
const CORNERS = 48;

/** A place as the address holds it: an id, or `@level,x,y`. */
export const pointText = (level: number, [x, y]: Point): string => `@${level},${x.toFixed(1)},${y.toFixed(1)}`;

/** What a place in the address means; undefined where it is neither a point nor a place of this venue. */
export function whereOf(text: string | undefined, index: VenueIndex): { where: Where; level: number; point: Point; name: string } | undefined {
  if (text === undefined) return undefined;
  const point = POINT.exec(text);
  if (point) {
    const [level, x, y] = point.slice(1).map(Number) as [number, number, number];
    if (level >= index.doc.levels.length) return undefined;
    const place = index.at(level, x, y);
    return { where: { level, x, y }, level, point: [x, y], name: s.ways.point(place?.name ?? "", index.doc.levels[level]!.name) };
  }
  const spot = index.byId.get(text);
  const anchor = index.anchorOf(text);
  if (spot === undefined || spot.kind !== "unit" || anchor === undefined) return undefined;
  return { where: { place: text }, level: anchor.level, point: anchor.point, name: spot.name || text };
}

/** Which ways between levels are ruled out or avoided. */
export function waysOf(avoid: { stairs: boolean; escalators: boolean }): Partial<Record<Way, Rule>> {
  return {
    ...(avoid.stairs ? { stairs_up: "avoid", stairs_down: "avoid" } : {}),
    ...(avoid.escalators ? { escalator_up: "avoid", escalator_down: "avoid" } : {}),
  } as Partial<Record<Way, Rule>>;
}

/** A route as it is drawn on every level: the level that is looked at in full, the others as a shadow; each change of levels with where it leads. */
export function figuresOfRoute(route: RouteIs, level: number, index: VenueIndex): Figure[] {
  const out: Figure[] = [];
  const walked = route.legs.flatMap((leg) => {
    if (leg.type !== "walk") return [];
    const [x, y] = [f4(leg.x), f4(leg.y)];
    return [{ level: leg.level, points: Array.from(x, (_, i): Point => [x[i]!, y[i]!]) }];
  });
  for (const { level: at, points } of walked) {
    if (points.length < 2) continue;
    if (at !== level) out.push({ kind: "line", level, points, colour: "quiet", widthPx: 2, alpha: 120 });
    else {
      out.push({ kind: "line", level, points, colour: "surface", widthPx: 8 });
      out.push({ kind: "line", level, points, colour: "me", widthPx: 4.5 });
    }
  }
  route.legs.forEach((leg, i) => {
    if (leg.type !== "ride") return;
    for (const [at, other, near] of [
      [leg.from_level, leg.to_level, walkEnd(route, i - 1, true)],
      [leg.to_level, leg.from_level, walkEnd(route, i + 1, false)],
    ] as const) {
      const point = near ?? stopOf(index, leg.connector, at);
      if (point === undefined || at !== level) continue;
      out.push({ kind: "point", level: at, point, colour: "me", radiusPx: 7 });
      out.push({ kind: "name", level: at, point, text: `${other > at ? "↑" : "↓"} ${index.doc.levels[other]?.short_name ?? ""}`, belowPx: 16 });
    }
  });
  const first = walked[0];
  const last = walked.at(-1);
  if (first?.points[0]) out.push({ kind: "point", level: first.level, point: first.points[0], colour: "me", radiusPx: 6, hollow: true });
  if (last?.points.at(-1)) out.push({ kind: "point", level: last.level, point: last.points.at(-1)!, colour: "me", radiusPx: 8 });
  return out;
}

function walkEnd(route: RouteIs, i: number, last: boolean): Point | undefined {
  const leg = route.legs[i];
  if (leg?.type !== "walk") return undefined;
  const [x, y] = [f4(leg.x), f4(leg.y)];
  const k = last ? x.length - 1 : 0;
  return x.length > 0 ? [x[k]!, y[k]!] : undefined;
}

function stopOf(index: VenueIndex, connector: string, level: number): Point | undefined {
  const found = index.doc.connectors.find((c) => c.id === connector);
  return found?.stops.find((stop) => index.levelIndex.get(stop.level_id) === level)?.point;
}

/** What a connector, unit or opening is called. */
export function nameOfAccess(id: string, index: VenueIndex): string {
  const connector = index.doc.connectors.find((c) => c.id === id);
  if (connector)
    return s.ways.connector(
      s.ways.kind[connector.kind] ?? connector.kind,
      id.replace(/^(lift|elevator|stairs|escalator|ramp)-/, "").replace(/-/g, " "),
    );
  return index.byId.get(id)?.name || id;
}

/** Where closed connectors stand, on each of their levels. */
export function figuresOfClosed(closed: ReadonlySet<string>, index: VenueIndex): Figure[] {
  return index.doc.connectors
    .filter((c) => closed.has(c.id))
    .flatMap((c) =>
      c.stops.map((stop): Figure => ({ kind: "point", level: index.levelIndex.get(stop.level_id) ?? 0, point: stop.point, colour: "alert", radiusPx: 11, hollow: true })),
    ); // biome-ignore format: one line
}

/** The ground of a zone, as rings to draw; a line has none. */
export function groundOf(shape: ZoneShape, index: VenueIndex): MultiPolygon {
  switch (shape.type) {
    case "polygon":
      return shape.polygon;
    case "unit":
      return index.byId.get(shape.unit_id)?.polygon ?? [];
    case "circle":
      return [[Array.from({ length: CORNERS }, (_, i): Point => around(shape.x_m, shape.y_m, shape.radius_m, (2 * Math.PI * i) / CORNERS))]];
    case "corridor": {
      // Both sides of the line; its round ends are left out.
      const { line, half_width_m: w } = shape;
      const side = (sign: number) =>
        line.map((p, i): Point => {
          const [a, b] = [line[Math.max(0, i - 1)]!, line[Math.min(line.length - 1, i + 1)]!];
          const length = Math.hypot(b[0] - a[0], b[1] - a[1]) || 1;
          return [p[0] - (sign * w * (b[1] - a[1])) / length, p[1] + (sign * w * (b[0] - a[0])) / length];
        });
      return [[[...side(1), ...side(-1).reverse()]]];
    }
    case "line":
      return [];
  }
}

const around = (x: number, y: number, r: number, angle: number): Point => [x + r * Math.cos(angle), y + r * Math.sin(angle)];

export function figuresOfZones(zones: readonly DrawnZone[], chosen: string | undefined, index: VenueIndex): Figure[] {
  return zones.flatMap((zone): Figure[] => {
    const strong = zone.id === chosen;
    if (zone.shape.type === "line") {
      const { a, b } = zone.shape;
      return [
        { kind: "line", level: zone.level, points: [a, b], colour: "accent", widthPx: strong ? 5 : 3 },
        { kind: "name", level: zone.level, point: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2], text: zone.name, belowPx: 12 },
      ];
    }
    const ground = groundOf(zone.shape, index);
    return [
      ...ground.map((polygon): Figure => ({ kind: "area", level: zone.level, polygon, colour: "accent", alpha: strong ? 70 : 30, edgePx: strong ? 3 : 1.5 })),
      ...(ground.length > 0 ? [{ kind: "name", level: zone.level, point: middleOf(ground), text: zone.name } as Figure] : []),
    ]; // biome-ignore format: a list
  });
}

/** Corners set so far, as they are drawn: an open line of two, an area of more. */
export function figuresOfSketch(level: number, corners: readonly Point[]): Figure[] {
  const out: Figure[] = corners.map((point): Figure => ({ kind: "point", level, point, colour: "offer", radiusPx: 5 }));
  if (corners.length === 2) out.unshift({ kind: "line", level, points: [...corners], colour: "offer", widthPx: 2.5 });
  if (corners.length > 2) out.unshift({ kind: "area", level, polygon: [[...corners]], colour: "offer", alpha: 40, edgePx: 2 });
  return out;
}

/** What two corners, or more, mean: a counting line, an area; fewer mean nothing yet. */
export function shapeOfSketch(corners: readonly Point[]): ZoneShape | undefined {
  if (corners.length < 2) return undefined;
  if (corners.length === 2) return { type: "line", a: corners[0]!, b: corners[1]! };
  return { type: "polygon", polygon: [[[...corners]]] };
}

/** An id that says the name, and that nothing in the venue has yet. */
export function zoneId(name: string, taken: (id: string) => boolean): string {
  const slug = name.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, ID_LENGTH); // biome-ignore format: one line
  const base = slug === "" ? "zone" : slug;
  for (let n = 1; ; n++) {
    const id = n === 1 ? base : `${base}-${n}`;
    if (!taken(id)) return id;
  }
}

export function editText(edit: LiveEdit, index: VenueIndex): string {
  const unit = index.byId.get(edit.unit_id)?.name || edit.unit_id;
  switch (edit.type) {
    case "close_unit":
      return s.edits.closed(unit);
    case "open_unit":
      return s.edits.opened(unit);
    case "move_unit":
      return s.edits.moved(unit);
    case "relabel":
      if (edit.occupant === "") return s.edits.movedOut(edit.unit_id);
      return s.edits.relabelled(edit.unit_id, edit.occupant ?? edit.name ?? edit.category ?? "");
  }
}

/** Person-minutes a square metre, and the most of it: the top of the scale. */
export function heatOf(frame: HeatFrame): { grid: Grid; most: number } {
  const value = f4(frame.person_s);
  if (value.length !== frame.cols * frame.rows) throw new RangeError(`heat: ${value.length} cells for ${frame.cols} x ${frame.rows}`);
  const share = 1 / (60 * frame.cell_m * frame.cell_m);
  const grid = {
    x0: frame.x0_m,
    y0: frame.y0_m,
    cell: frame.cell_m,
    cols: frame.cols,
    rows: frame.rows,
    value: Float32Array.from(value, (x) => x * share),
  };
  return { grid, most: grid.value.reduce((a, b) => Math.max(a, b), 0) };
}

/** The rectangle of a zone's ground or line. */
export function boxOfZone(zone: DrawnZone, index: VenueIndex) {
  return zone.shape.type === "line" ? boundsOf([[[[zone.shape.a, zone.shape.b]]]]) : boundsOf([groundOf(zone.shape, index)]);
}
