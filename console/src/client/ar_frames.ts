/** Wire frames of anchors, scenes and localisation, typed by hand from gateway/frames/ar.py; completed with the defaults that the server leaves out. */

export type Vector = [number, number, number];
/** Unit quaternion x, y, z, w. */
export type Rotation = [number, number, number, number];

export type Anchor = {
  id: Uint8Array;
  level: number;
  position_m: Vector;
  rotation: Rotation;
  covariance: number[];
  quality: number;
  tags: string[];
  expires_ms: number;
  access: "everyone" | "owner" | "staff";
  fragment: Uint8Array;
  carrier: string;
  payload: Uint8Array;
};
export type Held = { anchor: Anchor; owner: number; version: number; quality: number; agreed: number; disputed: number; distance_m?: number };
export type Observation = { id: Uint8Array; position_m: Vector; rotation: Rotation; sigma_m: number; sigma_rad: number; seen_from: Uint8Array };
/** `pose` (7,) f4: position, rotation. */
export type Present = { client: string; level: number; pose: Uint8Array };

type Sparse<T, Key extends keyof T> = Partial<T> & Pick<T, Key>;
export type SparseHeld = Sparse<Omit<Held, "anchor">, "owner" | "version" | "quality"> & { anchor: Sparse<Anchor, "id" | "level" | "position_m"> };
export type SparseObservation = Sparse<Observation, "id" | "position_m">;

export type ArRequests = {
  anchors_near: [{ venue: string; level: number; x: number; y: number; radius_m: number; k: number }, AnchorsAre];
  resolve_anchors: [{ venue: string; ids: Uint8Array }, AnchorsAre];
  get_anchor_graph: [{ venue: string }, AnchorGraph];
  scene_sync: [{ venue: string; scene: string; seen?: Record<string, number>; snapshot?: boolean; at?: number }, SceneDelta];
  localise: [{ venue: string; level: number; points: Uint8Array; near?: Vector; within_m?: number }, Localised | NotLocalised];
};

export type AnchorsAre = { op: "anchors_are"; seq: number; anchors: SparseHeld[] };
export type AnchorGraph = { op: "anchor_graph"; seq: number; anchors: SparseHeld[]; seen: SparseObservation[] };
export type AnchorsChanged = { op: "anchors_changed"; venue: string; what: "hosted" | "moved" | "removed" | "expired"; ids: Uint8Array };
export type SceneDelta = { op: "scene_delta"; seq: number; ops: Uint8Array; whole: boolean };
export type SceneEdits = { op: "scene_edits"; venue: string; scene: string; author: string; ops: Uint8Array };
export type PresenceIs = { op: "presence_is"; venue: string; scene: string; present: Present[] };
export type Localised = {
  op: "localised";
  seq: number;
  venue: string;
  level: number;
  position_m: Vector;
  rotation: Rotation;
  covariance: Uint8Array;
  chance: number;
  map: string;
};
export type NotLocalised = { op: "not_localised"; seq: number; venue: string; level: number; reason: string; chance: number; map: string };
export type ArServerFrame = AnchorsAre | AnchorGraph | AnchorsChanged | SceneDelta | SceneEdits | PresenceIs | Localised | NotLocalised;

const NO_TURN: Rotation = [0, 0, 0, 1];
const NOTHING = new Uint8Array(0);

export function completeHeld(held: SparseHeld): Held {
  const { anchor } = held;
  return {
    agreed: 0,
    disputed: 0,
    ...held,
    anchor: {
      rotation: NO_TURN,
      covariance: [],
      quality: 0.5,
      tags: [],
      expires_ms: 0,
      access: "everyone",
      fragment: NOTHING,
      carrier: "",
      payload: NOTHING,
      ...anchor,
    },
  };
}

/** Defaults of ar/anchors.py. */
export const DEFAULT_SIGMA_M = 0.05;
export const DEFAULT_SIGMA_RAD = (2 * Math.PI) / 180;
export function completeObservation(seen: SparseObservation): Observation {
  return { rotation: NO_TURN, sigma_m: DEFAULT_SIGMA_M, sigma_rad: DEFAULT_SIGMA_RAD, seen_from: NOTHING, ...seen };
}
