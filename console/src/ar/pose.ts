/** Poses, and what is drawn of them as lines. Pure. Metres; unit quaternions x, y, z, w; z is up. A camera looks along its z, x to the right, y down (as `localised` says). */
import { DEFAULT_SIGMA_M, DEFAULT_SIGMA_RAD, type Held, type Observation, type Rotation, type Vector } from "../client/ar_frames";

export type Pose = { position_m: Vector; rotation: Rotation };
export type Line = [Vector, Vector];
/** How many standard deviations an observation may lie off and still agree (ar/anchors.py). */
const GATE_SIGMAS = 3;

export function rotated(q: Rotation, v: Vector): Vector {
  const [x, y, z, w] = q;
  const tx = 2 * (y * v[2] - z * v[1]);
  const ty = 2 * (z * v[0] - x * v[2]);
  const tz = 2 * (x * v[1] - y * v[0]);
  return [v[0] + w * tx + y * tz - z * ty, v[1] + w * ty + z * tx - x * tz, v[2] + w * tz + x * ty - y * tx];
}

const plus = (a: Vector, b: Vector): Vector => [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
const conjugate = ([x, y, z, w]: Rotation): Rotation => [-x, -y, -z, w];

function product(a: Rotation, b: Rotation): Rotation {
  const [ax, ay, az, aw] = a;
  const [bx, by, bz, bw] = b;
  return [
    aw * bx + ax * bw + ay * bz - az * by,
    aw * by - ax * bz + ay * bw + az * bx,
    aw * bz + ax * by - ay * bx + az * bw,
    aw * bw - ax * bx - ay * by - az * bz,
  ];
}

/** `inner`, a pose in the frame of `outer`, in the frame that `outer` is in. */
export function composed(outer: Pose, inner: Pose): Pose {
  return { position_m: plus(outer.position_m, rotated(outer.rotation, inner.position_m)), rotation: product(outer.rotation, inner.rotation) };
}

/** Metres and radians between two poses. */
export function apart(a: Pose, b: Pose): { metres: number; radians: number } {
  const metres = Math.hypot(a.position_m[0] - b.position_m[0], a.position_m[1] - b.position_m[1], a.position_m[2] - b.position_m[2]);
  const [x, y, z, w] = product(conjugate(a.rotation), b.rotation);
  return { metres, radians: 2 * Math.atan2(Math.hypot(x, y, z), Math.abs(w)) };
}

/** Largest variances of where an anchor is held to be, square metres and square radians: the diagonal of the upper triangle. */
function variances({ covariance: c }: Held["anchor"]): [number, number] {
  if (c.length !== 21) return [DEFAULT_SIGMA_M ** 2, DEFAULT_SIGMA_RAD ** 2];
  return [Math.max(c[0]!, c[6]!, c[11]!), Math.max(c[15]!, c[18]!, c[20]!)];
}

/** One observation of an anchor, as the server judges it (ar/anchors.py `agrees`). `at`: where the anchor was seen, in the venue's frame. */
export type Judged = { from: Held | undefined; of: Held; seen: Observation; at: Pose; metres: number; radians: number; agrees: boolean };

export function judge(seen: Observation, of: Held, from: Held | undefined): Judged {
  const at = from === undefined ? seen : composed(from.anchor, seen);
  const { metres, radians } = apart(of.anchor, at);
  const [m, rad] = variances(of.anchor);
  const [fromM, fromRad] = from === undefined ? [0, 0] : variances(from.anchor);
  const agrees =
    metres <= GATE_SIGMAS * Math.sqrt(seen.sigma_m ** 2 + m + fromM) && radians <= GATE_SIGMAS * Math.sqrt(seen.sigma_rad ** 2 + rad + fromRad);
  return { from, of, seen, at: { position_m: at.position_m, rotation: at.rotation }, metres, radians, agrees };
}

/** Where x, y and z of a pose point, `length` metres long. */
export function axesOf({ position_m, rotation }: Pose, length: number): [Line, Line, Line] {
  const along = (v: Vector): Line => [position_m, plus(position_m, rotated(rotation, v))];
  return [along([length, 0, 0]), along([0, length, 0]), along([0, 0, length])];
}

/** What a camera sees up to `depth` metres, for a picture of 4 to 3 that is 60 degrees wide: edges, and a mark for its upper side. */
export function frustumOf({ position_m, rotation }: Pose, depth: number): Line[] {
  const w = depth * Math.tan(Math.PI / 6);
  const h = (w * 3) / 4;
  const at = (x: number, y: number): Vector => plus(position_m, rotated(rotation, [x, y, depth]));
  const corners = [at(-w, -h), at(w, -h), at(w, h), at(-w, h)];
  const roof = at(0, -1.5 * h);
  const rim = corners.map((c, i): Line => [c, corners[(i + 1) % 4]!]);
  return [...corners.map((c): Line => [position_m, c]), ...rim, [corners[0]!, roof], [corners[1]!, roof]];
}

/** A transform as the three rows of its matrix: 3 numbers of turn and scale, then the translation. */
export type Matrix = readonly [number, number, number, number, number, number, number, number, number, number, number, number];
export const IDENTITY: Matrix = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0];

const numbers = (value: unknown, n: number): number[] | undefined =>
  Array.isArray(value) && value.length === n && value.every((v) => typeof v === "number" && Number.isFinite(v)) ? (value as number[]) : undefined;

/** Of a node's properties `translation`, `rotation`, `scale` (glTF 2.0, 3.5.3: scaled, turned, moved); what is missing or is none counts as no change. */
export function localMatrix(get: (key: string) => unknown): Matrix {
  const t = numbers(get("translation"), 3) ?? [0, 0, 0];
  const s = numbers(get("scale"), 3) ?? [1, 1, 1];
  const given = numbers(get("rotation"), 4) ?? [0, 0, 0, 1];
  const norm = Math.hypot(...given);
  const q = (norm > 1e-9 ? given.map((v) => v / norm) : [0, 0, 0, 1]) as Rotation;
  const [x, y, z] = [rotated(q, [s[0]!, 0, 0]), rotated(q, [0, s[1]!, 0]), rotated(q, [0, 0, s[2]!])];
  return [x[0], y[0], z[0], t[0]!, x[1], y[1], z[1], t[1]!, x[2], y[2], z[2], t[2]!];
}

export function transformed(m: Matrix, v: Vector): Vector {
  return [
    m[0] * v[0] + m[1] * v[1] + m[2] * v[2] + m[3],
    m[4] * v[0] + m[5] * v[1] + m[6] * v[2] + m[7],
    m[8] * v[0] + m[9] * v[1] + m[10] * v[2] + m[11],
  ];
}

export function times(a: Matrix, b: Matrix): Matrix {
  const out: number[] = [];
  for (let row = 0; row < 12; row += 4) {
    for (let column = 0; column < 4; column++) {
      const own = a[row]! * b[column]! + a[row + 1]! * b[column + 4]! + a[row + 2]! * b[column + 8]!;
      out.push(own + (column === 3 ? a[row + 3]! : 0));
    }
  }
  return out as unknown as Matrix;
}

/** All sixteen numbers by columns, as WebGL takes them. */
export function columnsOf(m: Matrix): number[] {
  return [m[0], m[4], m[8], 0, m[1], m[5], m[9], 0, m[2], m[6], m[10], 0, m[3], m[7], m[11], 1];
}

/** The twelve edges of a cube of `side` metres around the origin of a transform. */
export function boxOf(m: Matrix, side: number): Line[] {
  const h = side / 2;
  const corners = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => transformed(m, [i & 1 ? h : -h, i & 2 ? h : -h, i & 4 ? h : -h]));
  return corners.flatMap((corner, i) => [1, 2, 4].filter((bit) => !(i & bit)).map((bit): Line => [corner, corners[i | bit]!]));
}
