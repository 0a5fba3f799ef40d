/** A point cloud from a .ply file (ascii or little-endian), thinned to what fits into a message. Pure. Metres, in the frame of the camera that saw it. */

/** As many points as `localise` takes of anybody. */
export const MAX_POINTS = 300_000;
const HEAD_BYTES = 256;
const VOXEL_M = 0.05;
const COARSER = 1.05;
const SIZES: Record<string, number> = { char: 1, int8: 1, uchar: 1, uint8: 1, short: 2, int16: 2, ushort: 2, uint16: 2, int: 4, int32: 4, uint: 4, uint32: 4, float: 4, float32: 4, double: 8, float64: 8 }; // biome-ignore format: a table

/** x, y, z of the vertices. Throws RangeError naming what is wrong with the file. */
export function readPly(data: ArrayBuffer): Float64Array {
  const head = new TextDecoder("latin1").decode(data.slice(0, 16_384));
  const ends = /end_header\r?\n/.exec(head);
  if (!head.startsWith("ply") || ends === null) throw new RangeError("this is no .ply file: it must begin with `ply` and have an `end_header`");
  const lines = head.slice(0, ends.index).split(/\r?\n/);
  const format = /^format (\S+)/.exec(lines.find((line) => line.startsWith("format")) ?? "")?.[1];
  const elements = lines.filter((line) => line.startsWith("element"));
  const count = Number(/^element vertex (\d+)$/.exec(elements[0]?.trim() ?? "")?.[1]);
  if (!Number.isInteger(count)) throw new RangeError("the first element of the .ply file must be `vertex`");
  const next = elements[1] === undefined ? lines.length : lines.indexOf(elements[1]);
  const fields = lines
    .slice(lines.indexOf(elements[0]!), next)
    .flatMap((line) => [...line.matchAll(/^property (\w+) (\w+)/g)].map((m) => [m[1]!, m[2]!]));
  const at = ["x", "y", "z"].map((axis) => fields.findIndex(([, name]) => name === axis));
  if (at.includes(-1) || fields.some(([type]) => SIZES[type!] === undefined))
    throw new RangeError("the vertices of the .ply file must have x, y and z, and no lists");
  const start = ends.index + ends[0].length;
  const out = new Float64Array(count * 3);
  if (format === "ascii") {
    const rows = new TextDecoder("latin1").decode(data.slice(start)).split(/\r?\n/);
    if (rows.length < count) throw new RangeError(`the .ply file says ${count} vertices and has ${rows.length} lines`);
    for (let i = 0; i < count; i++) {
      const numbers = rows[i]!.trim().split(/\s+/).map(Number);
      for (let k = 0; k < 3; k++) out[3 * i + k] = numbers[at[k]!] ?? Number.NaN;
    }
    return out;
  }
  if (format !== "binary_little_endian") throw new RangeError(`a .ply file of format ${format}: must be ascii or binary_little_endian`);
  const offsets = fields.map((_, i) => fields.slice(0, i).reduce((sum, [type]) => sum + SIZES[type!]!, 0));
  const stride = fields.reduce((sum, [type]) => sum + SIZES[type!]!, 0);
  if (data.byteLength < start + stride * count) throw new RangeError(`the .ply file says ${count} vertices and is cut off`);
  const view = new DataView(data, start);
  for (let k = 0; k < 3; k++) {
    const type = fields[at[k]!]![0]!;
    if (!/^(float|double)/.test(type)) throw new RangeError(`x, y and z of the .ply file are ${type}: must be float or double`);
    for (let i = 0; i < count; i++) {
      const place = i * stride + offsets[at[k]!]!;
      out[3 * i + k] = SIZES[type] === 4 ? view.getFloat32(place, true) : view.getFloat64(place, true);
    }
  }
  return out;
}

/** One point of each 5 cm (little coarser where they would not fit into a message of so many bytes), as (n, 3) i2 millimetres. Throws RangeError where none is left. */
export function thinned(points: Float64Array, messageBytes: number): Uint8Array {
  const most = Math.min(MAX_POINTS, Math.floor((messageBytes - HEAD_BYTES) / 6));
  for (let voxel = VOXEL_M; ; voxel *= COARSER) {
    const kept = new Map<string, number>();
    for (let i = 0; i < points.length; i += 3) {
      const [x, y, z] = [points[i]!, points[i + 1]!, points[i + 2]!];
      if (!(Math.max(Math.abs(x), Math.abs(y), Math.abs(z)) < 32) || Math.abs(x) + Math.abs(y) + Math.abs(z) === 0) continue;
      const key = `${Math.floor(x / voxel)},${Math.floor(y / voxel)},${Math.floor(z / voxel)}`;
      if (!kept.has(key)) kept.set(key, i);
    }
    if (kept.size === 0) throw new RangeError("no point within 32 m of the camera: the cloud must be in metres, in the camera's own frame");
    if (kept.size > most) continue;
    const out = new Int16Array(kept.size * 3);
    let row = 0;
    for (const i of kept.values()) for (let k = 0; k < 3; k++) out[row++] = Math.round(points[i + k]! * 1000);
    return new Uint8Array(out.buffer);
  }
}
