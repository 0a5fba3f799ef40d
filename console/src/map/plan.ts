/** A level's floor plan as shapes to draw: floor, shops, voids, walls with their openings. Pure; metres in the venue frame. */
import type { Point, Polygon, Unit, VenueIndex } from "../venue";
import { boundsOf } from "../venue";
import { fencesOf, type Segment, shellOf, wallsOf } from "./walls";

export type Plan = {
  floor: Polygon[];
  around: Polygon[];
  fills: Record<"shop" | "shut" | "void" | "treads" | "floor", Polygon[]>;
  zones: Point[][];
  walls: Segment[];
  shell: Segment[];
  fences: Segment[];
};

const FILL: Record<string, keyof Plan["fills"]> = {
  room: "shop",
  stage: "shop",
  restroom: "shop",
  "restroom.male": "shop",
  "restroom.female": "shop",
  "restroom.wheelchair": "shop",
  elevator: "treads",
  stairs: "treads",
  escalator: "treads",
  parking: "treads",
  opentobelow: "void",
  walkway: "floor",
  nonpublic: "shut",
  structure: "shut",
  unspecified: "shut",
};

export const closed = (ring: Point[]): Point[] => (ring.length > 0 ? [...ring, ring[0]!] : ring);

/** What is drawn of a level, by its place in the document. */
export function planOf(index: VenueIndex, ordinal: number): Plan {
  const { doc } = index;
  const level = doc.levels[ordinal]!;
  const here = <T extends { level_id: string }>(items: T[]) => items.filter((item) => item.level_id === level.id);
  const units: Unit[] = here(doc.units);
  const b = boundsOf([level.outline]);
  const m = 4000;
  const outer: Point[] = [
    [b.x0 - m, b.y0 - m],
    [b.x1 + m, b.y0 - m],
    [b.x1 + m, b.y1 + m],
    [b.x0 - m, b.y1 + m],
  ];
  const fills: Plan["fills"] = { shop: [], shut: [], void: [], treads: [], floor: [] };
  for (const unit of units) fills[FILL[unit.category] ?? "shut"].push(...unit.polygon);
  return {
    floor: level.outline,
    around: [[outer, ...level.outline.map((p) => p[0]!)], ...level.outline.flatMap((p) => p.slice(1).map((hole): Polygon => [hole]))],
    fills,
    zones: here(doc.zones).flatMap((zone) => zone.polygon.map((p) => closed(p[0]!))),
    walls: wallsOf(units, here(doc.openings)),
    shell: shellOf(level.outline, here(doc.entrances)),
    fences: fencesOf(here(doc.barriers)),
  };
}
