/** What the AR page knows: a level's anchors, the pose graph, one scene and who looks at it. Owns no DOM; fed by the wire's frames. */
import { signal } from "@preact/signals";
import {
  completeHeld,
  completeObservation,
  type Held,
  type Localised,
  type NotLocalised,
  type Observation,
  type Rotation,
  type SceneDelta,
  type SparseHeld,
  type Vector,
} from "../client/ar_frames";
import { f4 } from "../client/codec";
import { RequestError, type Wire } from "../client/wire";
import type { Bounds } from "../venue";
import { type MeshName, meshNameOf } from "./meshes";
import { thinned } from "./ply";
import { boxOf, IDENTITY, type Judged, judge, type Line, localMatrix, type Matrix, type Pose, times, transformed } from "./pose";
import { type Lost, SceneReplica } from "./scene";
import { clientOf, type Dot, decodeOps, ROOT, seqOf } from "./scene_ops";

/** Anchors are asked for in circles: the server answers 200 m around and 1,000 at most. */
const REACH_M = 200;
const AT_ONCE = 1000;
const MAX_CIRCLES = 25;
const ID_BYTES = 16;
/** Pages of a scene read in one go: a million nodes' worth. */
const MAX_PAGES = 500;
/** Who has not said where they look from for so long looks no more. The server tells of the silent only when somebody else speaks. */
const PRESENT_MS = 5_500;
/** The server answers a camera within 20 s, or says that it cannot. */
const LOCALISE_S = 25;
/** Edge of the box that stands for a node, before its scale. */
export const BOX_M = 0.5;

export const hexOf = (bytes: Uint8Array): string => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
const bytesOf = (ids: readonly string[]): Uint8Array =>
  Uint8Array.from(ids.flatMap((id) => id.match(/../g)!.map((pair) => Number.parseInt(pair, 16))));

/** Centres of circles of REACH_M that cover a rectangle, the middle ones where it would take more than MAX_CIRCLES; `whole`: they cover all of it. */
export function circlesOver(b: Bounds): { centres: [number, number][]; whole: boolean } {
  const step = REACH_M * Math.SQRT2 * 0.99;
  const n = (from: number, to: number) => Math.max(1, Math.ceil((to - from) / step));
  const [columns, rows] = [n(b.x0, b.x1), n(b.y0, b.y1)];
  const [cx, cy] = [(b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2];
  const centres = Array.from({ length: columns * rows }, (_, i): [number, number] => [
    cx + ((i % columns) - (columns - 1) / 2) * step,
    cy + (Math.floor(i / columns) - (rows - 1) / 2) * step,
  ]);
  centres.sort((p, q) => Math.hypot(p[0] - cx, p[1] - cy) - Math.hypot(q[0] - cx, q[1] - cy));
  return { centres: centres.slice(0, MAX_CIRCLES), whole: centres.length <= MAX_CIRCLES };
}

/** Who looks from where; `what` is a client, or the file that was localised. */
export type Eye = Pose & { who: string; level: number };

export type SceneNode = {
  node: Dot;
  depth: number;
  name: string;
  at: Vector;
  box: Line[];
  /** It says where it is itself; else its box would stand where its parent's does. */
  placed: boolean;
  world: Matrix;
  /** What is drawn in place of its box, where that can be read. */
  mesh: MeshName | undefined;
  lost: Lost[];
};

/** A node by its `name`, else by who made it and as which of theirs. */
export function nameOf(scene: SceneReplica, node: Dot): string {
  const name = scene.get(node, "name");
  return typeof name === "string" && name !== "" ? name : `${clientOf(node)} #${seqOf(node)}`;
}

/** The tree as rows, parents first, each where its own transform and those above put it. */
export function sceneNodes(scene: SceneReplica): { nodes: SceneNode[]; lost: Lost[] } {
  const lost = scene.conflicts();
  const of = new Map<Dot, Lost[]>();
  for (const one of lost) of.set(one.node, [...(of.get(one.node) ?? []), one]);
  const world = new Map<Dot, Matrix>([[ROOT, IDENTITY]]);
  const nodes: SceneNode[] = [];
  for (const { node, depth } of scene.nodes()) {
    const m = times(
      world.get(scene.parent(node) ?? ROOT) ?? IDENTITY,
      localMatrix((key) => scene.get(node, key)),
    );
    world.set(node, m);
    nodes.push({
      node,
      depth,
      name: nameOf(scene, node),
      at: transformed(m, [0, 0, 0]),
      box: boxOf(m, BOX_M),
      placed: Array.isArray(scene.get(node, "translation")),
      world: m,
      mesh: meshNameOf((key) => scene.get(node, key)),
      lost: of.get(node) ?? [],
    });
  }
  return { nodes, lost };
}

export type Graph = { seen: Observation[]; held: Map<string, Held> };

/** Observations of an anchor and those made from it, worst first. */
export function graphOf(graph: Graph, id: string): Judged[] {
  const found: Judged[] = [];
  for (const seen of graph.seen) {
    const from = seen.seen_from.length > 0 ? hexOf(seen.seen_from) : undefined;
    if (hexOf(seen.id) !== id && from !== id) continue;
    const of = graph.held.get(hexOf(seen.id));
    const base = from === undefined ? undefined : graph.held.get(from);
    if (of !== undefined && (from === undefined || base !== undefined)) found.push(judge(seen, of, base));
  }
  return found.sort((a, b) => Number(a.agrees) - Number(b.agrees) || b.metres - a.metres);
}

export type SceneState = { name: string; nodes: SceneNode[]; lost: Lost[]; replica: SceneReplica; loading: boolean; failure?: RequestError };

export class ArModel {
  readonly anchors = signal<ReadonlyMap<string, Held>>(new Map());
  /** Whether these are all of the level: false where it is too large, or holds too many in one place. */
  readonly whole = signal(true);
  readonly loading = signal(true);
  readonly failure = signal<RequestError | undefined>(undefined);
  readonly graph = signal<Graph | RequestError | undefined>(undefined);
  readonly scene = signal<SceneState | undefined>(undefined);
  readonly present = signal<readonly Eye[]>([]);
  readonly placed = signal<{ file: string; answer: Localised | NotLocalised } | undefined>(undefined);
  #level = -1;
  #bounds: Bounds = { x0: 0, y0: 0, x1: 0, y1: 0 };
  #reading = 0;
  readonly #dirty = new Set<string>();
  #resolving = false;
  #syncing = false;
  #silence: ReturnType<typeof setTimeout> | undefined;
  #again = false;
  readonly #off: (() => void)[] = [];
  #offScene: (() => void)[] = [];

  constructor(
    readonly wire: Wire,
    readonly venue: string,
  ) {
    const topic = `venue/${venue}/anchors`;
    this.#off.push(
      wire.on("anchors_changed", (f) => f.venue === venue && this.#changed(f.what, f.ids)),
      wire.on("scene_edits", (f) => f.venue === venue && f.scene === this.scene.value?.name && this.#edited(f.ops)),
      wire.on("presence_is", (f) => {
        if (f.venue !== venue || f.scene !== this.scene.value?.name) return;
        clearTimeout(this.#silence);
        this.#silence = setTimeout(() => {
          this.present.value = [];
        }, PRESENT_MS);
        this.present.value = f.present.map(({ client, level, pose }) => {
          const [x, y, z, qx, qy, qz, qw] = f4(pose) as unknown as [...Vector, ...Rotation];
          return { who: client, level, position_m: [x, y, z], rotation: [qx, qy, qz, qw] };
        });
      }),
      wire.on("skipped", (f) => {
        if (f.topic === topic) void this.refresh();
        if (f.topic === `venue/${venue}/scene/${this.scene.value?.name}`) void this.#sync();
      }),
      wire.subscribe(topic),
    );
  }

  close(): void {
    this.#reading += 1;
    clearTimeout(this.#silence);
    for (const off of [...this.#off, ...this.#offScene]) off();
  }

  // --- anchors

  /** Show another level. */
  look(level: number, bounds: Bounds): void {
    if (level === this.#level) return;
    this.#level = level;
    this.#bounds = bounds;
    this.anchors.value = new Map();
    void this.refresh();
  }

  /** Read the level's anchors anew, and what of the scene was missed: topics do not repeat. Called at each connection and level. */
  async refresh(): Promise<void> {
    const reading = ++this.#reading;
    this.loading.value = true;
    void this.#sync();
    const { centres, whole } = circlesOver(this.#bounds);
    const level = this.#level;
    try {
      const found = new Map<string, Held>();
      let all = whole;
      for (const [x, y] of centres) {
        const { anchors } = await this.wire.request("anchors_near", { venue: this.venue, level, x, y, radius_m: REACH_M, k: AT_ONCE });
        if (reading !== this.#reading) return;
        all &&= anchors.length < AT_ONCE;
        for (const held of anchors) found.set(hexOf(held.anchor.id), completeHeld(held));
      }
      this.anchors.value = found;
      this.whole.value = all;
      this.failure.value = undefined;
    } catch (error) {
      if (reading === this.#reading) this.failure.value = asRequestError(error);
    } finally {
      if (reading === this.#reading) {
        this.loading.value = false;
        void this.#resolve();
      }
    }
  }

  /** The pose graph as it is now: it is told to operators, and only when asked. */
  async readGraph(): Promise<void> {
    try {
      const answer = await this.wire.request("get_anchor_graph", { venue: this.venue });
      const held = new Map(answer.anchors.map((one) => [hexOf(one.anchor.id), completeHeld(one)]));
      this.graph.value = { seen: answer.seen.map(completeObservation), held };
      this.#put(answer.anchors);
    } catch (error) {
      this.graph.value = asRequestError(error);
    }
  }

  #changed(what: "hosted" | "moved" | "removed" | "expired", ids: Uint8Array): void {
    const names = Array.from({ length: Math.floor(ids.length / ID_BYTES) }, (_, i) => hexOf(ids.subarray(i * ID_BYTES, (i + 1) * ID_BYTES)));
    if (what === "removed" || what === "expired") {
      const left = new Map(this.anchors.value);
      for (const id of names) left.delete(id);
      this.anchors.value = left;
      for (const id of names) this.#dirty.delete(id);
      if (!this.#resolving && !this.loading.value) return;
    }
    // Also of those removed while an answer is under way, which may still hold them: what is not found is not shown.
    for (const id of names) this.#dirty.add(id);
    if (!this.loading.value) void this.#resolve();
  }

  /** Those told of since, as they are now: one question at a time, however fast they move. */
  async #resolve(): Promise<void> {
    if (this.#resolving) return;
    this.#resolving = true;
    try {
      while (this.#dirty.size > 0) {
        const ids = [...this.#dirty].slice(0, AT_ONCE);
        for (const id of ids) this.#dirty.delete(id);
        const { anchors } = await this.wire.request("resolve_anchors", { venue: this.venue, ids: bytesOf(ids) });
        const left = new Map(this.anchors.value);
        for (const id of ids) left.delete(id);
        this.anchors.value = left;
        this.#put(anchors);
      }
    } catch (error) {
      this.failure.value = asRequestError(error);
    } finally {
      this.#resolving = false;
    }
  }

  #put(anchors: readonly SparseHeld[]): void {
    const known = new Map(this.anchors.value);
    for (const one of anchors) if (one.anchor.level === this.#level) known.set(hexOf(one.anchor.id), completeHeld(one));
    this.anchors.value = known;
  }

  // --- the scene

  /** Show the scene of that name; undefined: none. */
  open(name: string | undefined): void {
    if (name === this.scene.value?.name) return;
    for (const off of this.#offScene) off();
    this.#offScene = [];
    this.present.value = [];
    this.scene.value = undefined;
    if (name === undefined) return;
    this.scene.value = { name, nodes: [], lost: [], replica: new SceneReplica(), loading: true };
    this.#offScene = [this.wire.subscribe(`venue/${this.venue}/scene/${name}`), this.wire.subscribe(`venue/${this.venue}/presence/${name}`, 2)];
    void this.#sync();
  }

  #edited(bytes: Uint8Array): void {
    const state = this.scene.value!;
    try {
      if (!state.replica.take(decodeOps(bytes))) void this.#sync();
      else this.#show(state.replica);
    } catch (error) {
      this.#fail(state.replica, error);
    }
  }

  /** Read what the replica lacks, page by page. What is told meanwhile and lacks its causes asks for another round. */
  async #sync(): Promise<void> {
    this.#again = true;
    if (this.#syncing) return;
    this.#syncing = true;
    try {
      while (this.#again && this.scene.value !== undefined) {
        this.#again = false;
        const { name } = this.scene.value;
        let { replica } = this.scene.value;
        try {
          for (let page = 0; page < MAX_PAGES && replica === this.scene.value?.replica; page++) {
            let delta: SceneDelta;
            try {
              delta = await this.wire.request("scene_sync", { venue: this.venue, scene: name, seen: Object.fromEntries(replica.seen) });
            } catch (error) {
              if (asRequestError(error).code !== "scene_too_old") throw error;
              const whole = await this.#whole(name);
              if (replica !== this.scene.value?.replica) break;
              replica = whole;
              this.scene.value = { ...this.scene.value, replica };
              continue;
            }
            if (!replica.take(decodeOps(delta.ops))) throw new RangeError("the server's operations lack their causes: reload the page");
            if (delta.whole) break;
          }
          this.#show(replica);
        } catch (error) {
          this.#fail(replica, error);
        }
      }
    } finally {
      this.#syncing = false;
    }
  }

  /** The scene by its snapshot, where what a delta would begin with has been forgotten. */
  async #whole(name: string): Promise<SceneReplica> {
    const parts: number[] = [];
    for (let page = 0; page < MAX_PAGES; page++) {
      const part = await this.wire.request("scene_sync", { venue: this.venue, scene: name, snapshot: true, at: parts.length });
      for (const byte of part.ops) parts.push(byte);
      if (part.whole) return SceneReplica.of(Uint8Array.from(parts));
    }
    throw new RangeError(`the scene has more than ${parts.length} bytes: too large for a page`);
  }

  #show(replica: SceneReplica): void {
    const state = this.scene.value;
    if (state?.replica === replica) this.scene.value = { name: state.name, replica, loading: false, ...sceneNodes(replica) };
  }

  #fail(replica: SceneReplica, error: unknown): void {
    const state = this.scene.value;
    if (state?.replica === replica) this.scene.value = { ...state, loading: false, failure: asRequestError(error) };
  }

  // --- where a camera is

  /** Ask where a camera is that saw this cloud: x, y, z after x, y, z, metres in its own frame. Throws RangeError for one that cannot be asked of. */
  async localise(file: string, cloud: Float64Array): Promise<void> {
    const points = thinned(cloud, this.wire.messageBytes);
    const answer = await this.wire.request("localise", { venue: this.venue, level: this.#level, points }, LOCALISE_S);
    this.placed.value = { file, answer };
  }
}

export function asRequestError(error: unknown): RequestError {
  return error instanceof RequestError ? error : new RequestError("unreadable", error instanceof Error ? error.message : String(error), false);
}
