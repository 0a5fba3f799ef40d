/**
 * A replica of a scene that only reads: what `ar/scene.py` shows after the same operations, conflicts included.
 *
 * The tree is found anew from all moves in rank order when it is read after a change, instead of undoing and doing again: a page reads far less often than it is told.
 * Owns no wire: bytes come from `scene_ops.ts`. What an operation lacks is not waited for but said (`take` returns false): the caller syncs by the version vector.
 */
import { decode as unpack } from "@msgpack/msgpack";
import { COLLECT, clientOf, type Dot, decodeOps, dotOf, MOVE, type Op, ROOT, SET, saw, seqOf, TRASH } from "./scene_ops";

/** A visible conflict: what `client` wrote and who did not win. `what`: a property's name, "move", or "deleted" (edited while deleted). */
export type Lost = { node: Dot; what: string; client: string; stamp: bigint; value: unknown };

/** Texts by code point, as the server orders them; JavaScript's own order is by UTF-16 unit. */
export function compareText(a: string, b: string): number {
  if (a === b) return 0;
  for (let i = 0; i < a.length && i < b.length; i++) {
    if (a[i] !== b[i]) return (a.codePointAt(i) ?? 0) - (b.codePointAt(i) ?? 0);
  }
  return a.length - b.length;
}

const compareDots = (a: Dot, b: Dot): number => compareText(clientOf(a), clientOf(b)) || seqOf(a) - seqOf(b);
const compareRank = (a: Op, b: Op): number => (a.stamp < b.stamp ? -1 : a.stamp > b.stamp ? 1 : compareText(a.client, b.client));

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length && i < b.length; i++) if (a[i] !== b[i]) return a[i]! - b[i]!;
  return a.length - b.length;
}

/** Whether two values of properties are the same; maps by their entries, in any order. */
export function sameValue(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (a instanceof Uint8Array || b instanceof Uint8Array) return a instanceof Uint8Array && b instanceof Uint8Array && compareBytes(a, b) === 0;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const left = Object.entries(a);
  return (
    left.length === Object.keys(b).length &&
    left.every(([key, value]) => Object.hasOwn(b, key) && sameValue(value, (b as Record<string, unknown>)[key]))
  );
}

/** Those of a property's values that the author of no other had seen. */
function heads(ops: Op[]): Op[] {
  if (ops.length < 2) return ops;
  const last = new Map(ops.map((op) => [op.client, op]));
  const kept = [...last.values()];
  return kept.filter((op) => kept.every((other) => other === op || !saw(other, op.client, op.seq)));
}

type Shown = { children: Map<Dot, Dot[]>; parents: Map<Dot, Dot>; tree: Map<Dot, Op>; log: Op[] };

export class SceneReplica {
  /** How many operations of each client are here: what `scene_sync` is told. */
  readonly seen = new Map<string, number>();
  #moves: Op[] = [];
  /** Where nodes stood by the stable stamp: what is older has been forgotten. */
  #base = new Map<Dot, Op>();
  #stable = 0n;
  readonly #values = new Map<Dot, Map<string, Op[]>>();
  readonly #gone = new Set<Dot>();
  #shown: Shown | undefined;

  /** A replica from the bytes of `Scene.snapshot`. Throws RangeError for what is none. */
  static of(bytes: Uint8Array): SceneReplica {
    const body = unpack(bytes, { useBigInt64: true }) as { seen: Record<string, number | bigint>; stable: number | bigint; gone: [string, number | bigint, unknown][]; ops: Uint8Array }; // biome-ignore format: one line
    if (typeof body !== "object" || body === null || !(body.ops instanceof Uint8Array))
      throw new RangeError(`scene snapshot of ${bytes.length} bytes: is none`);
    const scene = new SceneReplica();
    scene.#stable = BigInt(body.stable);
    for (const [client, seq] of body.gone) scene.#gone.add(dotOf(client, Number(seq)));
    for (const op of decodeOps(body.ops)) {
      if (op.kind === SET) scene.#set(op);
      else if (op.kind === COLLECT) continue;
      else if (op.stamp <= scene.#stable) scene.#base.set(op.node, op);
      else scene.#moves.push(op);
    }
    for (const [client, n] of Object.entries(body.seen)) scene.seen.set(client, Number(n));
    return scene;
  }

  /** Take operations, causes first; what is known already is passed over. False where one lacks its causes: those from it on are not taken, and a sync is due. */
  take(ops: readonly Op[]): boolean {
    for (const op of ops) {
      const known = this.seen.get(op.client) ?? 0;
      if (op.seq <= known) continue;
      if (op.seq !== known + 1) return false;
      for (const [client, n] of op.context) if ((this.seen.get(client) ?? 0) < n) return false;
      this.seen.set(op.client, op.seq);
      this.#shown = undefined;
      if (op.kind === SET) this.#set(op);
      else if (op.kind === COLLECT) this.#forget(op);
      else this.#moves.push(op);
    }
    return true;
  }

  #set(op: Op): void {
    if (this.#gone.has(op.node)) return;
    const keys = this.#values.get(op.node) ?? new Map<string, Op[]>();
    this.#values.set(op.node, keys);
    keys.set(op.key, heads([...(keys.get(op.key) ?? []), op]));
  }

  /** Deleted nodes that everyone has seen deleted: they never show again. How the others came where they stand is forgotten with them. */
  #forget(op: Op): void {
    const stable = op.value as bigint;
    this.#base = fold(this.#base, this.#moves.filter((one) => one.stamp <= stable).sort(compareRank));
    this.#moves = this.#moves.filter((one) => one.stamp > stable);
    // biome-ignore lint/complexity/useMathMinMax: Math.max knows no BigInt
    this.#stable = stable > this.#stable ? stable : this.#stable;
    for (const node of op.nodes) {
      this.#gone.add(node);
      this.#base.delete(node);
      this.#values.delete(node);
    }
  }

  // --- what shows

  children(node: Dot = ROOT): readonly Dot[] {
    return this.#show().children.get(node) ?? [];
  }

  parent(node: Dot): Dot | undefined {
    return this.#show().parents.get(node);
  }

  has(node: Dot): boolean {
    return node === ROOT || this.#show().parents.has(node);
  }

  /** Every node shown, parents first, with how deep it stands. */
  *nodes(): Generator<{ node: Dot; depth: number }> {
    const stack = [...this.children()].reverse().map((node) => ({ node, depth: 0 }));
    for (let one = stack.pop(); one !== undefined; one = stack.pop()) {
      yield one;
      const { node, depth } = one;
      for (const child of [...this.children(node)].reverse()) stack.push({ node: child, depth: depth + 1 });
    }
  }

  /** A property's winning value, or null. */
  get(node: Dot, key: string): unknown {
    const ops = this.#values.get(node)?.get(key);
    return ops === undefined ? null : [...ops].sort(compareRank).at(-1)!.value;
  }

  /** Winning values that are not nil, by name. */
  properties(node: Dot): [string, unknown][] {
    const keys = [...(this.#values.get(node)?.keys() ?? [])].sort(compareText);
    return keys.map((key): [string, unknown] => [key, this.get(node, key)]).filter(([, value]) => value !== null);
  }

  /** What lost against concurrent writers and has not been settled since. */
  conflicts(): Lost[] {
    const { tree, log } = this.#show();
    const lost: Lost[] = [];
    for (const [node, keys] of this.#values) {
      const place = tree.get(node);
      if (place === undefined && node !== ROOT) continue;
      for (const [key, ops] of keys) {
        const ranked = [...ops].sort(compareRank);
        const winner = ranked.at(-1)!;
        for (const op of ranked.slice(0, -1)) {
          if (!sameValue(op.value, winner.value)) lost.push({ node, what: key, client: op.client, stamp: op.stamp, value: op.value });
        }
        if (place !== undefined && place.parent === TRASH && !saw(place, winner.client, winner.seq)) {
          lost.push({ node, what: "deleted", client: winner.client, stamp: winner.stamp, value: { [key]: winner.value } });
        }
      }
    }
    for (const op of log) {
      const winner = tree.get(op.node);
      if (winner === undefined || winner === op || saw(winner, op.client, op.seq) || op.parent === winner.parent) continue;
      lost.push({ node: op.node, what: "move", client: op.client, stamp: op.stamp, value: op.parent });
    }
    return lost.sort(
      (a, b) =>
        compareDots(a.node, b.node) ||
        compareText(a.what, b.what) ||
        (a.stamp < b.stamp ? -1 : a.stamp > b.stamp ? 1 : 0) ||
        compareText(a.client, b.client),
    );
  }

  #show(): Shown {
    this.#shown ??= this.#find();
    return this.#shown;
  }

  /** All moves once, in rank order; one that would close a cycle has no effect. */
  #find(): Shown {
    const log = [...this.#moves].sort(compareRank);
    const tree = fold(this.#base, log);
    return { tree, log, ...arrange(tree) };
  }
}

/** The tree after moves in rank order. One that would close a cycle, or whose node or parent is not there, has no effect. */
function fold(base: Map<Dot, Op>, log: readonly Op[]): Map<Dot, Op> {
  const tree = new Map(base);
  for (const op of log) {
    if (op.kind === MOVE && !tree.has(op.node)) continue;
    if (op.parent !== ROOT && op.parent !== TRASH && !tree.has(op.parent)) continue;
    let here: Dot | undefined = op.parent;
    while (here !== undefined && here !== op.node) here = tree.get(here)?.parent;
    if (here !== op.node) tree.set(op.node, op);
  }
  return tree;
}

/** Children of each node shown, in order, with what was rescued from deleted subtrees in its place. */
function arrange(tree: Map<Dot, Op>): Pick<Shown, "children" | "parents"> {
  const raw = new Map<Dot, Dot[]>();
  const add = (parent: Dot, node: Dot) => {
    const row = raw.get(parent);
    if (row === undefined) raw.set(parent, [node]);
    else row.push(node);
  };
  for (const [node, place] of tree) add(place.parent, node);
  const parents = new Map<Dot, Dot>();
  const descend = (from: Dot) => {
    const stack = [from];
    for (let here = stack.pop(); here !== undefined; here = stack.pop()) {
      for (const child of raw.get(here) ?? []) {
        if (parents.has(child)) continue;
        parents.set(child, here);
        stack.push(child);
      }
    }
  };
  descend(ROOT);
  const alive = new Set<Dot>([...parents.keys(), ROOT]);
  for (const node of rescued(tree, raw).sort(compareDots)) {
    const home = homeOf(node, tree, alive);
    parents.set(node, home);
    add(home, node);
    descend(node);
  }
  const children = new Map<Dot, Dot[]>();
  for (const [node, parent] of parents) {
    const row = children.get(parent);
    if (row === undefined) children.set(parent, [node]);
    else row.push(node);
  }
  for (const row of children.values()) row.sort((a, b) => compareBytes(tree.get(a)!.order, tree.get(b)!.order) || compareDots(a, b));
  return { children, parents };
}

/** Topmost nodes below a deleted one which its deleter had not seen there. */
function rescued(tree: Map<Dot, Op>, raw: Map<Dot, Dot[]>): Dot[] {
  const found: Dot[] = [];
  for (const deleted of raw.get(TRASH) ?? []) {
    const deletion = tree.get(deleted)!;
    const stack = [...(raw.get(deleted) ?? [])];
    for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
      const place = tree.get(node)!;
      if (saw(deletion, place.client, place.seq)) stack.push(...(raw.get(node) ?? []));
      else found.push(node);
    }
  }
  return found;
}

/** Where a rescued node shows: the nearest living former parent of what was deleted above it, else the root. */
function homeOf(node: Dot, tree: Map<Dot, Op>, alive: Set<Dot>): Dot {
  const tried = new Set<Dot>();
  let here = node;
  for (;;) {
    let place = tree.get(here);
    while (place !== undefined && place.parent !== TRASH) {
      here = place.parent;
      place = tree.get(here);
    }
    if (place === undefined || tried.has(here)) return ROOT;
    tried.add(here);
    const [client, seq] = place.order.length > 0 ? (unpack(place.order) as [string, number]) : ["", 0];
    here = dotOf(client, seq);
    if (alive.has(here)) return here;
  }
}
