/** Wire frames of ways, drawn zones, measures, parking and map edits, typed by hand from gateway/frames/ways.py and places.py. */

export type Pair = [number, number];
export type Way = "stairs_up" | "stairs_down" | "escalator_up" | "escalator_down" | "elevator" | "ramp";
export type Rule = "allow" | "avoid" | "forbid";
export type Band = "A" | "B" | "C" | "D" | "E" | "F";
/** A place by id, the nearest of a category (goals only), or a point. */
export type Where = { place: string } | { category: string } | { level: number; x: number; y: number };

export type WalkLeg = { type: "walk"; level: number; x: Uint8Array; y: Uint8Array; metres: number; seconds: number };
export type RideLeg = { type: "ride"; connector: string; way: Way; from_level: number; to_level: number; wait_s: number; seconds: number };
export type RouteIs = { op: "route_is"; seq: number; metres: number; seconds: number; legs: (WalkLeg | RideLeg)[]; words: string[]; goal?: string };
export type NoRoute = { op: "no_route"; seq: number; reason: string; message: string };
export type Access = { op: "access"; seq: number; venue: string; closed: string[] };

export type ZoneShape =
  | { type: "polygon"; polygon: Pair[][][] }
  | { type: "circle"; x_m: number; y_m: number; radius_m: number }
  | { type: "corridor"; line: Pair[]; half_width_m: number }
  | { type: "unit"; unit_id: string }
  | { type: "line"; a: Pair; b: Pair };
/** Fields that hold their default may be left out, both ways. */
export type DrawnZone = { id: string; name: string; level: number; shape: ZoneShape; dwell_s?: number | null };
export type ZoneList = { op: "zone_list"; seq: number; zones: DrawnZone[] };
export type ZoneFrame = {
  op: "zone";
  venue: string;
  zone: string;
  tick: number;
  inside: number;
  entries: number;
  exits: number;
  dwells: number;
  crossed: number;
  stayed_s: number;
  density_per_m2: number;
  service: Band;
};
export type Measures = {
  op: "measures";
  seq: number;
  zone: string;
  tick: number;
  inside: number;
  ground_m2: number;
  density_per_m2: number;
  service: Band;
  waiting: Band;
  mean_stay_s: number;
  voronoi_per_m2?: number | null;
  entries_per_min?: number | null;
  exits_per_min?: number | null;
};
export type HeatFrame = {
  op: "heat";
  seq: number;
  venue: string;
  level: number;
  tick: number;
  x0_m: number;
  y0_m: number;
  cell_m: number;
  cols: number;
  rows: number;
  person_s: Uint8Array;
  since_tick?: number | null;
};
export type ParkingCompared = { op: "parking_compared"; seq: number; venue: string; total: number; taken: number; inside: number; drift: number };
export type GateCount = { gate: string; sequence: number; entered: number; left: number };

export type LiveEdit =
  | { type: "close_unit"; unit_id: string }
  | { type: "open_unit"; unit_id: string; category?: string }
  | { type: "move_unit"; unit_id: string; dx_m: number; dy_m: number }
  | { type: "relabel"; unit_id: string; name?: string | null; occupant?: string | null; category?: string | null };
/** `done`: what can be taken back, oldest first; `undone`: how many can be done again. */
export type Edited = { op: "edited"; seq: number; venue: string; digest: string; done: LiveEdit[]; undone: number; edit?: LiveEdit | null };

export type SpaceRequests = {
  route: [
    { venue: string; goal: Where; start?: Where; profile?: string; ways?: Partial<Record<Way, Rule>>; by?: "fastest" | "shortest" },
    RouteIs | NoRoute,
  ];
  get_access: [{ venue: string }, Access];
  set_access: [{ venue: string; close?: string[]; open?: string[] }, Access];
  draw_zone: [{ venue: string; zone: DrawnZone }, { op: "done"; seq: number }];
  erase_zone: [{ venue: string; zone: string }, { op: "done"; seq: number }];
  get_zones: [{ venue: string }, ZoneList];
  measure: [{ venue: string; zone: string; voronoi?: boolean }, Measures];
  get_heat: [{ venue: string; level: number }, HeatFrame];
  count_gates: [{ venue: string; counts: GateCount[] }, ParkingCompared];
  compare_parking: [{ venue: string; moving_at_most?: number }, ParkingCompared];
  recount: [{ venue: string; moving?: number }, ParkingCompared];
  edit_venue: [{ venue: string; edit: LiveEdit }, Edited];
  undo_edit: [{ venue: string }, Edited];
  redo_edit: [{ venue: string }, Edited];
  get_edits: [{ venue: string }, Edited];
};
export type SpaceServerFrame = RouteIs | NoRoute | Access | ZoneList | ZoneFrame | Measures | HeatFrame | ParkingCompared | Edited;
