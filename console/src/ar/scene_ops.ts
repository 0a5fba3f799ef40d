/**
 * Operations of a scene from their bytes, as `ar/scene_ops.py` writes them. Owns the reading and its checks; `scene.ts` owns what an operation does.
 * The page only reads scenes, so there is no encoder. test/scenes.json, written by the server's own code, checks that the two agree.
 */
import { decode as unpack } from "@msgpack/msgpack";

/** The name of an operation and of the node that it created, `client` and count from 1, as one text that a Map can hold. */
export type Dot = string;
const SEPARATOR = "\u0000";
export const dotOf = (client: string, seq: number): Dot => `${client}${SEPARATOR}${seq}`;
export const clientOf = (dot: Dot): string => dot.slice(0, dot.lastIndexOf(SEPARATOR));
export const seqOf = (dot: Dot): number => Number(dot.slice(dot.lastIndexOf(SEPARATOR) + 1));
export const ROOT: Dot = dotOf("", 0);
export const TRASH: Dot = dotOf("", 1);

export const CREATE = 0;
export const MOVE = 1;
export const SET = 2;
export const COLLECT = 3;
const MAX_OPS = 200_000;
const MAX_CLIENTS = 10_000;

export type Context = ReadonlyMap<string, number>;
/** `stamp`: 64 bits, milliseconds since 1970 above 16 bits of count. `context`: what its author had seen of others; its own earlier operations are understood. */
export type Op = {
  client: string;
  seq: number;
  stamp: bigint;
  context: Context;
  kind: number;
  node: Dot;
  parent: Dot;
  order: Uint8Array;
  key: string;
  value: unknown;
  nodes: Dot[];
};

/** Whether the author of `op` had seen the operation of that name. */
export function saw(op: Op, client: string, seq: number): boolean {
  return client === op.client ? seq < op.seq : (op.context.get(client) ?? 0) >= seq;
}

const SAME_NODE = 4;
const NEXT_STAMP = 8;
const NEXT_DOT = 16;
const SAME_CONTEXT = 32;
const SAME_PARENT = 64;
const SMALL = 128;
const NOTHING = new Uint8Array(0);

class Reader {
  #at = 0;

  constructor(readonly data: Uint8Array) {}

  get left(): number {
    return this.data.length - this.#at;
  }

  byte(): number {
    const byte = this.data[this.#at];
    if (byte === undefined) throw new RangeError(`scene operations: cut off at byte ${this.data.length}`);
    this.#at += 1;
    return byte;
  }

  big(): bigint {
    let value = 0n;
    for (let shift = 0n; shift <= 63n; shift += 7n) {
      const byte = this.byte();
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw new RangeError(`scene operations: garbled at byte ${this.#at} of ${this.data.length}`);
  }

  number(): number {
    const first = this.data[this.#at];
    if (first !== undefined && first < 128) {
      this.#at += 1;
      return first;
    }
    const value = this.big();
    if (value > BigInt(Number.MAX_SAFE_INTEGER))
      throw new RangeError(`scene operations: a count of ${value} at byte ${this.#at} is beyond all counts`);
    return Number(value);
  }

  bytes(size: number): Uint8Array {
    if (size > this.left) throw new RangeError(`scene operations: ${size} bytes wanted at byte ${this.#at}, ${this.left} left`);
    this.#at += size;
    return this.data.subarray(this.#at - size, this.#at);
  }

  texts(most: number, what: string): string[] {
    const count = this.number();
    if (count > most) throw new RangeError(`scene operations: ${count} ${what}s: at most ${most}`);
    const decoder = new TextDecoder("utf-8", { fatal: true });
    return Array.from({ length: count }, () => decoder.decode(this.bytes(this.number())));
  }
}

function entry(table: string[], at: number): string {
  const text = table[at];
  if (text === undefined) throw new RangeError(`scene operations: entry ${at} of a table of ${table.length}`);
  return text;
}

/** Operations of bytes, in the order written: causes first. Throws RangeError for what is cut, garbled or over a limit; nothing is half taken. */
export function decodeOps(data: Uint8Array): Op[] {
  if (data.length < 5 || data[0] !== 0xe5 || data[1] !== 1) throw new RangeError(`scene operations: ${data.length} bytes: must begin e501`);
  const r = new Reader(data);
  r.bytes(2);
  const names = r.texts(MAX_CLIENTS, "client");
  const keys = r.texts(MAX_OPS, "property name");
  const count = r.number();
  if (count > MAX_OPS) throw new RangeError(`scene operations: ${count} in one batch: at most ${MAX_OPS}`);
  const dot = (): Dot => {
    const client = entry(names, r.number());
    return dotOf(client, r.number());
  };
  const contexts = new Map<string, Context>();
  const ops: Op[] = [];
  let client = "";
  let seq = 0;
  let stamp = 0n;
  let node = ROOT;
  let parent = ROOT;
  for (let i = 0; i < count; i++) {
    const flags = r.byte();
    const kind = flags & 3;
    if (flags & NEXT_DOT) seq += 1;
    else {
      client = entry(names, r.number());
      seq = r.number();
    }
    let context = contexts.get(client) ?? new Map<string, number>();
    if (!(flags & SAME_CONTEXT)) {
      const grown = new Map(context);
      for (let n = Math.min(r.number(), MAX_CLIENTS); n > 0; n--) {
        const other = entry(names, r.number());
        grown.set(other, r.number());
      }
      context = grown;
    }
    contexts.set(client, context);
    if (flags & NEXT_STAMP) stamp += 1n;
    else {
      const step = r.big();
      stamp += step & 1n ? -(step >> 1n) : step >> 1n;
    }
    if (client === "" || seq < 1 || stamp < 1n)
      throw new RangeError(`scene operation ${client}:${seq} stamped ${stamp}: must have a client, a count from 1 and a stamp above 0`);
    if (kind === CREATE) node = dotOf(client, seq);
    else if (kind !== COLLECT && !(flags & SAME_NODE)) node = dot();
    const op: Op = { client, seq, stamp, context, kind, node, parent: ROOT, order: NOTHING, key: "", value: null, nodes: [] };
    if (kind === SET) {
      op.key = entry(keys, r.number());
      op.value = flags & SMALL ? r.byte() : unpack(r.bytes(r.number()));
      parent = ROOT;
    } else if (kind === COLLECT) {
      op.node = node = parent = ROOT;
      op.value = r.big();
      op.nodes = Array.from({ length: Math.min(r.number(), MAX_OPS) }, dot);
    } else {
      if (!(flags & SAME_PARENT)) parent = dot();
      op.parent = parent;
      op.order = r.bytes(r.number()).slice();
    }
    ops.push(op);
  }
  if (r.left !== 0) throw new RangeError(`scene operations: ${r.left} bytes after the last`);
  return ops;
}
