/**
 * Positions between frames: each pseudonym moves evenly from where it is drawn to where the newest frame puts it.
 * Owns the arrays of one level. A pseudonym seen for the first time, or one that jumped more than JUMP_M, appears in its new place. Pure: time is an argument.
 */
import type { Point } from "../venue";
import { densityOfPoints, rampPosition, sample } from "./field";
import { type Rgb, rampColour } from "./ramp";

const JUMP_M = 15;
/** Of a frame's `radius`: this many decimetres or more. */
export const FARTHEST_DM = 255;
/** Longest time a move is drawn over; frames at 2 Hz come every 0.5 s. */
const LONGEST_S = 1.2;

export class Dots {
  count = 0;
  pseudonym: Uint32Array = new Uint32Array(0);
  /** (n, 2) metres, as drawn now. */
  xy = new Float32Array(0);
  /** (n, 4) bytes. */
  colour = new Uint8Array(0);
  /** (n,) metres within which nine in ten such dots are right; 0 where it is not known. */
  radiusM = new Float32Array(0);
  #from = new Float32Array(0);
  #to = new Float32Array(0);
  #start = 0;
  #span = 0.5;
  #settled = true;

  /** Take a frame received at `nowS`. */
  take(pseudonym: Uint32Array, x: Float32Array, y: Float32Array, nowS: number, ramp: readonly Rgb[], radiusDm?: Uint8Array): void {
    this.advance(nowS);
    const n = pseudonym.length;
    if (radiusDm !== undefined && radiusDm.length !== n) throw new RangeError(`dots: ${n} pseudonyms, ${radiusDm.length} radii`);
    if (x.length !== n || y.length !== n) throw new RangeError(`dots: ${n} pseudonyms, ${x.length} x, ${y.length} y`);
    const before = new Map<number, number>();
    for (let i = 0; i < this.count; i++) before.set(this.pseudonym[i]!, i);
    const from = new Float32Array(2 * n);
    const to = new Float32Array(2 * n);
    for (let i = 0; i < n; i++) {
      to[2 * i] = x[i]!;
      to[2 * i + 1] = y[i]!;
      const j = before.get(pseudonym[i]!);
      const known = j !== undefined && Math.hypot(this.xy[2 * j]! - x[i]!, this.xy[2 * j + 1]! - y[i]!) <= JUMP_M;
      from[2 * i] = known ? this.xy[2 * j!]! : x[i]!;
      from[2 * i + 1] = known ? this.xy[2 * j! + 1]! : y[i]!;
    }
    const gap = nowS - this.#start;
    if (this.count > 0 && gap > 0.02) this.#span = Math.min(LONGEST_S, 0.6 * this.#span + 0.4 * gap * 1.05);
    this.#start = nowS;
    this.count = n;
    this.pseudonym = pseudonym;
    this.radiusM = Float32Array.from({ length: n }, (_, i) => (radiusDm?.[i] ?? 0) / 10);
    this.#from = from;
    this.#to = to;
    this.xy = from.slice();
    this.#settled = n === 0;
    this.paint(ramp);
  }

  /** Colour each dot by the density at its place. */
  paint(ramp: readonly Rgb[]): void {
    const density = densityOfPoints(this.#to);
    const colour = new Uint8Array(4 * this.count);
    for (let i = 0; i < this.count; i++) {
      const [r, g, b] = rampColour(ramp, rampPosition(sample(density, this.#to[2 * i]!, this.#to[2 * i + 1]!)));
      colour[4 * i] = r;
      colour[4 * i + 1] = g;
      colour[4 * i + 2] = b;
      colour[4 * i + 3] = 255;
    }
    this.colour = colour;
  }

  /** Move the dots to where they are at `nowS`; true where anything moved. */
  advance(nowS: number): boolean {
    if (this.#settled) return false;
    const t = Math.min(1, (nowS - this.#start) / this.#span);
    const xy = new Float32Array(this.#to.length); // a new array: the layer sees that it changed
    for (let i = 0; i < xy.length; i++) xy[i] = this.#from[i]! + (this.#to[i]! - this.#from[i]!) * t;
    this.xy = xy;
    this.#settled = t >= 1;
    return true;
  }

  clear(): void {
    this.count = 0;
    this.xy = new Float32Array(0);
    this.#to = new Float32Array(0);
    this.#from = new Float32Array(0);
    this.colour = new Uint8Array(0);
    this.radiusM = new Float32Array(0);
    this.pseudonym = new Uint32Array(0);
    this.#settled = true;
  }

  /** The pseudonym drawn nearest to a point, at most `withinM` from it. */
  nearest(x: number, y: number, withinM: number): number | undefined {
    let found: number | undefined;
    let least = withinM;
    for (let i = 0; i < this.count; i++) {
      const away = Math.hypot(this.xy[2 * i]! - x, this.xy[2 * i + 1]! - y);
      if (away > least) continue;
      least = away;
      found = this.pseudonym[i]!;
    }
    return found;
  }

  /** Where a pseudonym is drawn, and how sure that is; undefined where it is not here. */
  of(pseudonym: number): { point: Point; radiusM: number } | undefined {
    const i = this.pseudonym.indexOf(pseudonym);
    return i < 0 ? undefined : { point: [this.xy[2 * i]!, this.xy[2 * i + 1]!], radiusM: this.radiusM[i]! };
  }

  /** How many lie in a box. */
  within(x0: number, y0: number, x1: number, y1: number): number {
    let n = 0;
    for (let i = 0; i < this.#to.length; i += 2) {
      const x = this.#to[i]!;
      const y = this.#to[i + 1]!;
      if (x >= x0 && x <= x1 && y >= y0 && y <= y1) n++;
    }
    return n;
  }
}
