/** Walls are the edges of units less their openings, so that a way in is seen as a gap. Pure geometry in metres. */
import type { Barrier, Bounds, Entrance, MultiPolygon, Opening, Point, Unit } from "../venue";

export type Segment = [Point, Point];

/** How far an opening may lie from the wall it opens. */
const NEAR_M = 0.6;
/** An entrance is a point; the gap drawn for it in the level's outline is this wide. */
const ENTRANCE_M = 4;

/** The parts of a-b not covered by the cuts (segments along it, within NEAR_M). */
export function cutSegment(a: Point, b: Point, cuts: readonly Segment[]): Segment[] {
  const dx = b[0] - a[0];
  const dy = b[1] - a[1];
  const length = Math.hypot(dx, dy);
  if (length < 1e-9) return [];
  const along = (p: Point) => ((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / length;
  const off = (p: Point) => Math.abs((p[0] - a[0]) * dy - (p[1] - a[1]) * dx) / length;
  const holes: [number, number][] = [];
  for (const [p, q] of cuts) {
    if (off(p) > NEAR_M || off(q) > NEAR_M) continue;
    const s = Math.min(along(p), along(q));
    const e = Math.max(along(p), along(q));
    if (e > 0 && s < length && e - s > 1e-6) holes.push([Math.max(0, s), Math.min(length, e)]);
  }
  holes.sort((x, y) => x[0] - y[0]);
  const out: Segment[] = [];
  const at = (t: number): Point => [a[0] + (dx * t) / length, a[1] + (dy * t) / length];
  let from = 0;
  for (const [s, e] of holes) {
    if (s - from > 0.05) out.push([at(from), at(s)]);
    from = Math.max(from, e);
  }
  if (length - from > 0.05) out.push([at(from), at(length)]);
  return out;
}

function* edges(shape: MultiPolygon): Generator<Segment> {
  for (const polygon of shape) for (const ring of polygon) for (let i = 0; i < ring.length; i++) yield [ring[i]!, ring[(i + 1) % ring.length]!];
}

const SOLID = new Set(["room", "nonpublic", "restroom", "restroom.male", "restroom.female", "restroom.wheelchair", "elevator", "structure", "stage", "unspecified"]);

export function wallsOf(units: readonly Unit[], openings: readonly Opening[]): Segment[] {
  // An opening cuts its own unit's wall and that of a neighbour whose wall coincides with it.
  const cuts = openings.map((o): Segment => [o.a, o.b]);
  const grid = new Map<string, Segment[]>();
  const cell = (x: number, y: number) => `${Math.floor(x / 16)},${Math.floor(y / 16)}`;
  for (const cut of cuts) {
    const keys = new Set<string>();
    for (const [x, y] of [...cut, [(cut[0][0] + cut[1][0]) / 2, (cut[0][1] + cut[1][1]) / 2] as Point]) keys.add(cell(x, y));
    for (const key of keys) grid.set(key, [...(grid.get(key) ?? []), cut]);
  }
  const out: Segment[] = [];
  for (const unit of units) {
    if (!SOLID.has(unit.category)) continue;
    for (const [a, b] of edges(unit.polygon)) {
      const near = new Set<Segment>();
      const steps = Math.ceil(Math.hypot(b[0] - a[0], b[1] - a[1]) / 8) + 1;
      for (let i = 0; i <= steps; i++) {
        const x = a[0] + ((b[0] - a[0]) * i) / steps;
        const y = a[1] + ((b[1] - a[1]) * i) / steps;
        for (const cut of grid.get(cell(x, y)) ?? []) near.add(cut);
      }
      out.push(...cutSegment(a, b, [...near]));
    }
  }
  return out;
}

/** The level's outline with a gap at each entrance that lies on it. */
export function shellOf(outline: MultiPolygon, entrances: readonly Entrance[]): Segment[] {
  const out: Segment[] = [];
  for (const [a, b] of edges(outline)) {
    const length = Math.hypot(b[0] - a[0], b[1] - a[1]);
    if (length < 1e-9) continue;
    const ux = (b[0] - a[0]) / length;
    const uy = (b[1] - a[1]) / length;
    const cuts: Segment[] = [];
    for (const { point } of entrances) {
      const t = (point[0] - a[0]) * ux + (point[1] - a[1]) * uy;
      const off = Math.abs((point[0] - a[0]) * uy - (point[1] - a[1]) * ux);
      if (off > 4 || t < -1 || t > length + 1) continue;
      const at = (s: number): Point => [a[0] + ux * s, a[1] + uy * s];
      cuts.push([at(t - ENTRANCE_M / 2), at(t + ENTRANCE_M / 2)]);
    }
    out.push(...cutSegment(a, b, cuts));
  }
  return out;
}

export function fencesOf(barriers: readonly Barrier[]): Segment[] {
  return barriers.flatMap(({ line }) => line.slice(1).map((p, i): Segment => [line[i]!, p]));
}

export function grow(b: Bounds, m: number): Bounds {
  return { x0: b.x0 - m, y0: b.y0 - m, x1: b.x1 + m, y1: b.y1 + m };
}
