/** Density: people in cells to persons/m2, smoothed, to colours. Levels of service A to F after Fruin (walkways, 1971). Pure. */
import { type Rgb, rampColour } from "./ramp";

/** Upper bounds of bands A to E in persons/m2; F is above the last. */
export const BANDS = [0.31, 0.43, 0.72, 1.08, 2.17] as const;
export const BAND_NAMES = ["A", "B", "C", "D", "E", "F"] as const;

export function bandOf(density: number): number {
  let band = 0;
  while (band < BANDS.length && density > BANDS[band]!) band++;
  return band;
}

/** Place of a density on the colour ramp, 0 to 1: piecewise linear, a sixth for each band, so that the bands are equally far apart in colour. */
export function rampPosition(density: number): number {
  let low = 0;
  for (let i = 0; i < BANDS.length; i++) {
    const high = BANDS[i]!;
    if (density <= high) return (i + Math.max(0, density - low) / (high - low)) / 6;
    low = high;
  }
  return Math.min(1, (5 + (density - low) / 2) / 6);
}

export type Grid = { x0: number; y0: number; cell: number; cols: number; rows: number; value: Float32Array };

/** One pass of a 3 x 3 binomial filter (1 2 1), edges repeated: counts in single cells are noise at walking densities. */
export function smooth(grid: Grid): Grid {
  const { cols, rows, value } = grid;
  const across = new Float32Array(value.length);
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < cols; c++) {
      const i = r * cols + c;
      across[i] = (value[c > 0 ? i - 1 : i]! + 2 * value[i]! + value[c < cols - 1 ? i + 1 : i]!) / 4;
    }
  const out = new Float32Array(value.length);
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < cols; c++) {
      const i = r * cols + c;
      out[i] = (across[r > 0 ? i - cols : i]! + 2 * across[i]! + across[r < rows - 1 ? i + cols : i]!) / 4;
    }
  return { ...grid, value: out };
}

/** Persons/m2 from counts by cell. */
export function perSquareMetre(count: Uint16Array, shape: Omit<Grid, "value">): Grid {
  if (count.length !== shape.cols * shape.rows) throw new RangeError(`${count.length} counts for ${shape.cols} x ${shape.rows} cells`);
  const area = shape.cell * shape.cell;
  return { ...shape, value: Float32Array.from(count, (n) => n / area) };
}

/** Density from points, over the box of the points. */
export function densityOfPoints(xy: Float32Array, cell = 2): Grid {
  let x0 = Infinity;
  let y0 = Infinity;
  let x1 = -Infinity;
  let y1 = -Infinity;
  for (let i = 0; i < xy.length; i += 2) {
    x0 = Math.min(x0, xy[i]!);
    x1 = Math.max(x1, xy[i]!);
    y0 = Math.min(y0, xy[i + 1]!);
    y1 = Math.max(y1, xy[i + 1]!);
  }
  if (xy.length === 0) return { x0: 0, y0: 0, cell, cols: 1, rows: 1, value: new Float32Array(1) };
  const cols = Math.min(2048, Math.floor((x1 - x0) / cell) + 3);
  const rows = Math.min(2048, Math.floor((y1 - y0) / cell) + 3);
  const value = new Float32Array(cols * rows);
  const share = 1 / (cell * cell);
  for (let i = 0; i < xy.length; i += 2) {
    const c = Math.min(cols - 1, Math.floor((xy[i]! - x0) / cell) + 1);
    const r = Math.min(rows - 1, Math.floor((xy[i + 1]! - y0) / cell) + 1);
    value[r * cols + c]! += share;
  }
  return smooth({ x0: x0 - cell, y0: y0 - cell, cell, cols, rows, value });
}

/** Value at a point, bilinear between cell middles; 0 outside. */
export function sample(grid: Grid, x: number, y: number): number {
  const u = (x - grid.x0) / grid.cell - 0.5;
  const v = (y - grid.y0) / grid.cell - 0.5;
  const c = Math.floor(u);
  const r = Math.floor(v);
  const at = (cc: number, rr: number) => (cc < 0 || rr < 0 || cc >= grid.cols || rr >= grid.rows ? 0 : grid.value[rr * grid.cols + cc]!);
  const fu = u - c;
  const fv = v - r;
  return (1 - fv) * ((1 - fu) * at(c, r) + fu * at(c + 1, r)) + fv * ((1 - fu) * at(c, r + 1) + fu * at(c + 1, r + 1));
}

/**
 * Cells to RGBA, `scale` pixels a cell, first row at the top of the picture (north). Fades in from nothing, so that empty floor stays floor: a cell is solid at `full`.
 * `place`: where a value stands on the ramp, 0 to 1; densities by their bands unless told otherwise.
 */
export function paintField(
  grid: Grid,
  ramp: readonly Rgb[],
  scale: number,
  place: (value: number) => number = rampPosition,
  full = 0.4,
): { width: number; height: number; rgba: Uint8ClampedArray<ArrayBuffer> } {
  const width = grid.cols * scale;
  const height = grid.rows * scale;
  const rgba = new Uint8ClampedArray(width * height * 4);
  for (let py = 0; py < height; py++) {
    const y = grid.y0 + ((height - py - 0.5) / scale) * grid.cell;
    for (let px = 0; px < width; px++) {
      const density = sample(grid, grid.x0 + ((px + 0.5) / scale) * grid.cell, y);
      const i = (py * width + px) * 4;
      const [r, g, b] = rampColour(ramp, place(density));
      rgba[i] = r;
      rgba[i + 1] = g;
      rgba[i + 2] = b;
      rgba[i + 3] = 235 * Math.min(1, density / full) ** 0.8;
    }
  }
  return { width, height, rgba };
}
