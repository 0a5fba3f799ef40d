/** The venue document (spatial/venue.py) and what the views look up in it. Metres in the venue frame, x east, y north, turned by `origin.bearing_deg`. */

export type Point = [number, number];
export type Ring = Point[];
export type Polygon = Ring[];
export type MultiPolygon = Polygon[];

export type Level = { id: string; ordinal: number; name: string; short_name: string; outline: MultiPolygon };
export type Unit = { id: string; level_id: string; category: string; name?: string | null; polygon: MultiPolygon; till?: boolean };
export type Opening = { id: string; level_id: string; unit_id: string; a: Point; b: Point };
export type Amenity = { id: string; level_id: string; category: string; name?: string | null; point: Point };
export type Occupant = { id: string; unit_id: string; name: string; category: string; tags?: string[]; popularity?: number };
export type Entrance = { id: string; code: string; name: string; level_id: string; point: Point; kind: "pedestrian" | "parking" };
export type Stop = { level_id: string; point: Point };
export type Connector = {
  id: string;
  kind: "stairs" | "escalator" | "elevator" | "ramp";
  stops: Stop[];
  direction: "both" | "forward" | "backward";
  access: "public" | "staff";
};
export type Barrier = { id: string; level_id: string; line: Point[] };
export type Zone = { id: string; level_id: string; name: string; category: string; polygon: MultiPolygon };

export type VenueDocument = {
  id: string;
  name: string;
  kind: "mall" | "festival";
  timezone?: string;
  origin: { lat_deg: number; lon_deg: number; bearing_deg?: number };
  levels: Level[];
  units: Unit[];
  openings: Opening[];
  amenities: Amenity[];
  occupants: Occupant[];
  entrances: Entrance[];
  connectors: Connector[];
  barriers: Barrier[];
  zones: Zone[];
};

/** Documents leave out fields that hold their default. */
type Sparse<T> = Partial<T>;
export function completeVenue(raw: Sparse<VenueDocument> & Pick<VenueDocument, "id" | "name" | "kind" | "origin" | "levels">): VenueDocument {
  return {
    ...raw,
    units: raw.units ?? [],
    openings: raw.openings ?? [],
    amenities: raw.amenities ?? [],
    occupants: (raw.occupants ?? []).map((o) => ({ ...o, category: o.category ?? "shop" })),
    entrances: (raw.entrances ?? []).map((e) => ({ ...e, kind: e.kind ?? "pedestrian" })),
    connectors: (raw.connectors ?? []).map((c) => ({ ...c, direction: c.direction ?? "both", access: c.access ?? "public" })),
    barriers: raw.barriers ?? [],
    zones: raw.zones ?? [],
  };
}

export type Bounds = { x0: number; y0: number; x1: number; y1: number };

/** A place with a name: a unit with its occupant, or a zone. */
export type Spot = {
  id: string;
  kind: "unit" | "zone";
  name: string;
  category: string;
  tags: string[];
  level: number;
  polygon: MultiPolygon;
  centre: Point;
  areaM2: number;
  popularity: number;
  till: boolean;
  isShop: boolean;
  /** Somebody has moved in, whatever the unit's category. */
  isOccupied: boolean;
  /** Nobody but staff may enter. */
  isClosed: boolean;
};

export function ringArea(ring: Ring): number {
  let twice = 0;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) twice += ring[j]![0] * ring[i]![1] - ring[i]![0] * ring[j]![1];
  return twice / 2;
}

export function areaOf(shape: MultiPolygon): number {
  return shape.reduce((sum, rings) => sum + rings.reduce((a, ring, i) => a + (i === 0 ? 1 : -1) * Math.abs(ringArea(ring)), 0), 0);
}

export function boundsOf(shapes: Iterable<MultiPolygon>): Bounds {
  const b: Bounds = { x0: Infinity, y0: Infinity, x1: -Infinity, y1: -Infinity };
  for (const shape of shapes)
    for (const polygon of shape)
      for (const [x, y] of polygon[0] ?? []) {
        b.x0 = Math.min(b.x0, x);
        b.y0 = Math.min(b.y0, y);
        b.x1 = Math.max(b.x1, x);
        b.y1 = Math.max(b.y1, y);
      }
  return Number.isFinite(b.x0) ? b : { x0: -50, y0: -50, x1: 50, y1: 50 };
}

export function covers(shape: MultiPolygon, x: number, y: number): boolean {
  return shape.some((rings) => rings.length > 0 && inRing(rings[0]!, x, y) && !rings.slice(1).some((hole) => inRing(hole, x, y)));
}

function inRing(ring: Ring, x: number, y: number): boolean {
  let inside = false;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    const [xi, yi] = ring[i]!;
    const [xj, yj] = ring[j]!;
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

/** A point inside the largest polygon, in the middle of its widest run along a few horizontal lines: good for a label. */
export function middleOf(shape: MultiPolygon): Point {
  const polygon = shape.reduce((best, p) => (Math.abs(ringArea(p[0] ?? [])) > Math.abs(ringArea(best[0] ?? [])) ? p : best), shape[0] ?? [[]]);
  const b = boundsOf([[polygon]]);
  let best: Point = [(b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2];
  let score = -1;
  for (const f of [0.5, 0.35, 0.65, 0.2, 0.8]) {
    const y = b.y0 + (b.y1 - b.y0) * f + 1e-6;
    const cuts: number[] = [];
    for (const ring of polygon)
      for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
        const [xi, yi] = ring[i]!;
        const [xj, yj] = ring[j]!;
        if (yi > y !== yj > y) cuts.push(((xj - xi) * (y - yi)) / (yj - yi) + xi);
      }
    cuts.sort((p, q) => p - q);
    for (let i = 0; i + 1 < cuts.length; i += 2) {
      const width = (cuts[i + 1]! - cuts[i]!) * (1 - Math.abs(f - 0.5) * 0.6);
      if (width > score) {
        score = width;
        best = [(cuts[i]! + cuts[i + 1]!) / 2, y];
      }
    }
  }
  return best;
}

/** The document with its lookups, made once. */
export class VenueIndex {
  readonly levelIndex: Map<string, number>;
  readonly spots: Spot[];
  readonly byId: Map<string, Spot>;
  readonly spotsByLevel: Spot[][];
  readonly bounds: Bounds;

  constructor(readonly doc: VenueDocument) {
    this.levelIndex = new Map(doc.levels.map((level, i) => [level.id, i]));
    const occupants = new Map(doc.occupants.map((occupant) => [occupant.unit_id, occupant]));
    this.spots = [
      ...doc.units.map((unit): Spot => {
        const occupant = occupants.get(unit.id);
        return {
          id: unit.id,
          kind: "unit",
          name: occupant?.name ?? unit.name ?? "",
          category: occupant?.category ?? unit.category,
          tags: occupant?.tags ?? [],
          level: this.levelIndex.get(unit.level_id) ?? 0,
          polygon: unit.polygon,
          centre: middleOf(unit.polygon),
          areaM2: areaOf(unit.polygon),
          popularity: occupant?.popularity ?? (occupant ? 1 : 0),
          till: unit.till ?? false,
          isShop: occupant !== undefined && unit.category !== "nonpublic",
          isOccupied: occupant !== undefined,
          isClosed: unit.category === "nonpublic",
        };
      }),
      ...doc.zones.map(
        (zone): Spot => ({
          id: zone.id,
          kind: "zone",
          name: zone.name,
          category: zone.category,
          tags: [],
          level: this.levelIndex.get(zone.level_id) ?? 0,
          polygon: zone.polygon,
          centre: middleOf(zone.polygon),
          areaM2: areaOf(zone.polygon),
          popularity: 1,
          till: false,
          isShop: false,
          isOccupied: false,
          isClosed: false,
        }),
      ),
    ];
    this.byId = new Map(this.spots.map((spot) => [spot.id, spot]));
    this.spotsByLevel = doc.levels.map((_, i) => this.spots.filter((spot) => spot.level === i));
    this.bounds = boundsOf(doc.levels.map((level) => level.outline));
  }

  /** The smallest place that covers a point: of those with a name, unless `any` is asked for. */
  at(level: number, x: number, y: number, any = false): Spot | undefined {
    let best: Spot | undefined;
    for (const spot of this.spotsByLevel[level] ?? []) {
      if ((any || spot.name !== "") && (best === undefined || spot.areaM2 < best.areaM2) && covers(spot.polygon, x, y)) best = spot;
    }
    return best;
  }

  /** Where offers of a unit hang: the middle of its first opening, else a point inside it. */
  anchorOf(unitId: string): { level: number; point: Point } | undefined {
    const spot = this.byId.get(unitId);
    if (spot === undefined) return undefined;
    const opening = this.doc.openings.find((o) => o.unit_id === unitId);
    const point: Point = opening ? [(opening.a[0] + opening.b[0]) / 2, (opening.a[1] + opening.b[1]) / 2] : spot.centre;
    return { level: spot.level, point };
  }

  /** Named places that match a search, best first: prefix of the name, then of a word, then inside it, then letters in order, then category and tags. */
  search(text: string, limit = 8): Spot[] {
    const wanted = fold(text);
    if (wanted === "") return [];
    const scored: [number, Spot][] = [];
    for (const spot of this.spots) {
      if (spot.name === "") continue;
      const score = matchScore(wanted, spot);
      if (score > 0) scored.push([score + Math.min(spot.popularity, 100) / 1000, spot]);
    }
    return scored
      .sort((a, b) => b[0] - a[0] || (a[1].name < b[1].name ? -1 : 1))
      .slice(0, limit)
      .map(([, spot]) => spot);
  }
}

export function fold(text: string): string {
  return text
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .toLocaleLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, " ")
    .trim();
}

function matchScore(wanted: string, spot: Spot): number {
  const name = fold(spot.name);
  if (name.startsWith(wanted)) return 5;
  if (name.split(" ").some((word) => word.startsWith(wanted))) return 4;
  if (name.includes(wanted)) return 3;
  if ([spot.category, ...spot.tags].some((tag) => fold(tag).startsWith(wanted))) return 2;
  let at = 0;
  for (const letter of name) if (letter === wanted[at]) at += 1;
  return wanted.length >= 3 && at === wanted.length ? 1 : 0;
}
