/** The density ramp: viridis (Smith and van der Walt, 2015; perceptually even, colour-blind safe), cut so that both ends stand out from the theme's floor. */

export type Rgb = readonly [number, number, number];

/** Viridis at 0, 1/16, ... 1. */
const VIRIDIS: readonly Rgb[] = [
  [68, 1, 84],
  [72, 24, 106],
  [71, 45, 123],
  [66, 64, 134],
  [59, 82, 139],
  [51, 99, 141],
  [44, 114, 142],
  [38, 130, 142],
  [33, 145, 140],
  [31, 160, 136],
  [40, 174, 128],
  [63, 188, 115],
  [94, 201, 98],
  [132, 212, 75],
  [173, 220, 48],
  [216, 226, 25],
  [253, 231, 37],
];

function cut(from: number, to: number): Rgb[] {
  return Array.from({ length: 17 }, (_, i) => rampColour(VIRIDIS, from + ((to - from) * i) / 16));
}

export function rampColour(ramp: readonly Rgb[], t: number): Rgb {
  const p = Math.min(1, Math.max(0, t)) * (ramp.length - 1);
  const i = Math.min(ramp.length - 2, Math.floor(p));
  const f = p - i;
  const a = ramp[i]!;
  const b = ramp[i + 1]!;
  return [Math.round(a[0] + (b[0] - a[0]) * f), Math.round(a[1] + (b[1] - a[1]) * f), Math.round(a[2] + (b[2] - a[2]) * f)];
}

/** On a dark floor density brightens, on a light floor it darkens: more people is always further from the floor. */
export const RAMPS: Record<"dark" | "light", readonly Rgb[]> = { dark: cut(0.4, 1), light: cut(0.68, 0) };
