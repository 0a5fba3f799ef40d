import { describe, expect, it } from "vitest";
import { fitCamera, lookAt, scaleBar, toScreen, toVenue } from "../src/map/camera";
import { Dots } from "../src/map/dots";
import { BANDS, bandOf, densityOfPoints, paintField, perSquareMetre, rampPosition, sample, smooth } from "../src/map/field";
import { type LabelBox, overlap, placeLabels, priorityOf, wrap } from "../src/map/labels";
import { discWeight, ease, FADE_FROM, FADE_TO, fieldWeight } from "../src/map/lod";
import { RAMPS } from "../src/map/ramp";
import { axesOf, regionOf } from "../src/map/region";
import { cutSegment, shellOf, wallsOf } from "../src/map/walls";
import { covers, type Opening, type Unit } from "../src/venue";

/** A small generator of its own (mulberry32), so that a failure repeats. */
function chance(seed: number) {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

describe("level of detail", () => {
  it("shows points alone up to 4,000 and the field alone well above", () => {
    expect(fieldWeight(0)).toBe(0);
    expect(fieldWeight(FADE_FROM)).toBe(0);
    expect(fieldWeight(FADE_TO)).toBe(1);
    expect(fieldWeight(50_000)).toBe(1);
  });
  it("draws everyone's disc only near and among few, and fades it without a jump", () => {
    expect(discWeight(8, 10)).toBe(1);
    expect(discWeight(3, 10)).toBe(0);
    expect(discWeight(8, 500)).toBe(0);
    for (let n = 0; n < 200; n++) expect(Math.abs(discWeight(8, n + 1) - discWeight(8, n))).toBeLessThan(0.03);
  });
  it("changes without a jump: one person more moves the weight by less than a hundredth", () => {
    for (let n = 3000; n < 7000; n++) {
      const step = fieldWeight(n + 1) - fieldWeight(n);
      expect(step).toBeGreaterThanOrEqual(0);
      expect(step).toBeLessThan(0.01);
    }
  });
  it("eases over its time, at once where motion is unwanted", () => {
    expect(ease(0, 1, 0.1, 0.2)).toBeCloseTo(0.5);
    expect(ease(0.95, 1, 0.1, 0.2)).toBe(1);
    expect(ease(0, 1, 0.001, 0)).toBe(1);
  });
});

describe("names", () => {
  const boxes = (n: number, seed: number): LabelBox[] => {
    const r = chance(seed);
    return Array.from({ length: n }, () => ({
      x: r() * 900 - 50,
      y: r() * 500,
      width: 20 + r() * 120,
      height: 12 + r() * 20,
      priority: Math.floor(r() * 10),
    }));
  };
  it.each([1, 2, 3, 4, 5])("never overlap, and none is left out that had room (seed %i)", (seed) => {
    const all = boxes(300, seed);
    const taken = placeLabels(all, 3);
    for (const [k, i] of taken.entries()) for (const j of taken.slice(k + 1)) expect(overlap(all[i]!, all[j]!, 3)).toBe(false);
    // The greedy rule, told by brute force: a box is drawn when no drawn box of higher rank touches it.
    const order = all.map((_, i) => i).sort((i, j) => all[j]!.priority - all[i]!.priority || i - j);
    const slow: number[] = [];
    for (const i of order) if (slow.every((j) => !overlap(all[i]!, all[j]!, 3))) slow.push(i);
    expect(taken).toEqual(slow);
  });
  it("of large and popular places come first", () => {
    expect(priorityOf(900, 5, false)).toBeGreaterThan(priorityOf(90, 5, false));
    expect(priorityOf(90, 50, false)).toBeGreaterThan(priorityOf(90, 5, false));
  });
  it("break over two lines of about equal length", () => {
    expect(wrap("Parkside Pharmacy", 10)).toEqual(["Parkside", "Pharmacy"]);
    expect(wrap("Voltline", 4)).toEqual(["Voltline"]);
  });
});

describe("walls", () => {
  const unit: Unit = { id: "u", level_id: "l", category: "room", polygon: [[[[0, 0], [10, 0], [10, 8], [0, 8]]]] }; // biome-ignore format: a ring
  const length = (segments: [number[], number[]][]) => segments.reduce((sum, [a, b]) => sum + Math.hypot(a[0]! - b[0]!, a[1]! - b[1]!), 0);
  it("have a gap as wide as the opening", () => {
    const opening: Opening = { id: "o", level_id: "l", unit_id: "u", a: [4, 0], b: [6, 0] };
    expect(length(wallsOf([unit], []))).toBeCloseTo(36);
    expect(length(wallsOf([unit], [opening]))).toBeCloseTo(34);
  });
  it("are not cut by an opening elsewhere", () => {
    expect(cutSegment([0, 0], [10, 0], [[[4, 3], [6, 3]]])).toEqual([[[0, 0], [10, 0]]]); // biome-ignore format: segments
  });
  it("leave gaps that overlap as one", () => {
    const parts = cutSegment([0, 0], [10, 0], [[[2, 0], [5, 0]], [[4, 0], [7, 0]]]); // biome-ignore format: segments
    expect(length(parts)).toBeCloseTo(5);
  });
  it("of the building open at entrances", () => {
    const square = unit.polygon;
    const at = { id: "e", code: "north", name: "North", level_id: "l", point: [5, 8] as [number, number], kind: "pedestrian" as const };
    expect(length(shellOf(square, [at]))).toBeCloseTo(32);
  });
});

describe("density", () => {
  it("bands are Fruin's", () => {
    expect([0, 0.31, 0.32, 0.5, 1, 2, 2.18, 9].map(bandOf)).toEqual([0, 0, 1, 2, 3, 4, 5, 5]);
  });
  it("takes a sixth of the ramp for each band, and never falls", () => {
    for (const [i, bound] of BANDS.entries()) expect(rampPosition(bound)).toBeCloseTo((i + 1) / 6);
    let before = -1;
    for (let d = 0; d < 6; d += 0.01) {
      expect(rampPosition(d)).toBeGreaterThanOrEqual(before);
      before = rampPosition(d);
    }
    expect(before).toBeLessThanOrEqual(1);
  });
  it("smoothing keeps people away from the edge", () => {
    const value = new Float32Array(49);
    value[24] = 16;
    const out = smooth({ x0: 0, y0: 0, cell: 1, cols: 7, rows: 7, value });
    expect(out.value.reduce((a, b) => a + b)).toBeCloseTo(16);
    expect(out.value[24]).toBe(4);
  });
  it("of points counts everybody once", () => {
    const r = chance(9);
    const xy = Float32Array.from({ length: 400 }, () => r() * 40);
    const grid = densityOfPoints(xy, 2);
    expect(grid.value.reduce((a, b) => a + b) * 4).toBeCloseTo(200, 1);
  });
  it("at a cell's middle is the cell's, outside nothing", () => {
    const grid = perSquareMetre(Uint16Array.from([4, 0, 0, 8]), { x0: 10, y0: 20, cell: 2, cols: 2, rows: 2 });
    expect(sample(grid, 11, 21)).toBe(1);
    expect(sample(grid, 13, 23)).toBe(2);
    expect(sample(grid, 100, 100)).toBe(0);
    expect(() => perSquareMetre(new Uint16Array(3), { x0: 0, y0: 0, cell: 1, cols: 2, rows: 2 })).toThrow(RangeError);
  });
  it("is painted with north up and empty floor clear", () => {
    const grid = perSquareMetre(Uint16Array.from([0, 0, 40, 0]), { x0: 0, y0: 0, cell: 2, cols: 2, rows: 2 });
    const { rgba, width } = paintField(grid, RAMPS.dark, 1);
    expect(width).toBe(2);
    expect(rgba[3]).toBeGreaterThan(200); // row 1 (north) of the grid is row 0 of the picture
    expect(rgba[(2 + 1) * 4 + 3]).toBe(0);
  });
});

describe("dots", () => {
  const u = (...v: number[]) => Uint32Array.from(v);
  const f = (...v: number[]) => Float32Array.from(v);
  it("move evenly between frames, by pseudonym and not by row", () => {
    const dots = new Dots();
    dots.take(u(1, 2), f(0, 5), f(0, 5), 0, RAMPS.dark);
    dots.take(u(2, 1), f(5, 1), f(5, 0), 0.5, RAMPS.dark);
    dots.advance(0.5);
    expect([...dots.xy]).toEqual([5, 5, 0, 0]);
    dots.advance(0.75);
    expect(dots.xy[2]).toBeGreaterThan(0.3);
    expect(dots.xy[2]).toBeLessThan(0.7);
    dots.advance(3);
    expect([...dots.xy]).toEqual([5, 5, 1, 0]);
    expect(dots.advance(4)).toBe(false);
  });
  it("that are new or jumped appear where they are, and who left is gone", () => {
    const dots = new Dots();
    dots.take(u(1, 2), f(0, 0), f(0, 0), 0, RAMPS.dark);
    dots.take(u(1, 3), f(100, 7), f(0, 7), 0.5, RAMPS.dark);
    expect(dots.count).toBe(2);
    expect([...dots.xy]).toEqual([100, 0, 7, 7]);
  });
  it("do not jump when a frame comes early", () => {
    const dots = new Dots();
    dots.take(u(1), f(0), f(0), 0, RAMPS.dark);
    dots.take(u(1), f(2), f(0), 0.5, RAMPS.dark);
    dots.advance(0.7);
    const before = dots.xy[0]!;
    dots.take(u(1), f(3), f(0), 0.7, RAMPS.dark);
    expect(dots.xy[0]).toBeCloseTo(before, 5);
  });
  it("in a crowd are coloured apart from one that stands alone", () => {
    const dots = new Dots();
    const n = 60;
    dots.take(Uint32Array.from({ length: n + 1 }, (_, i) => i), Float32Array.from({ length: n + 1 }, (_, i) => (i === n ? 80 : (i % 8) * 0.4)), Float32Array.from({ length: n + 1 }, (_, i) => (i === n ? 80 : Math.floor(i / 8) * 0.4)), 0, RAMPS.dark); // biome-ignore format: columns
    expect([...dots.colour.slice(0, 3)]).not.toEqual([...dots.colour.slice(4 * n, 4 * n + 3)]);
  });
  it("are as sure as the frame says, and a dot of which nothing is said is not", () => {
    const dots = new Dots();
    dots.take(u(1, 2), f(0, 5), f(0, 5), 0, RAMPS.dark, Uint8Array.of(31, 0));
    expect(dots.of(1)?.radiusM).toBeCloseTo(3.1);
    expect(dots.of(2)?.radiusM).toBe(0);
    expect(dots.of(3)).toBeUndefined();
    dots.take(u(1, 2), f(0, 5), f(0, 5), 0.5, RAMPS.dark);
    expect(dots.of(1)?.radiusM).toBe(0);
  });
  it("are found by the nearest within reach, where they are drawn now", () => {
    const dots = new Dots();
    dots.take(u(1, 2), f(0, 5), f(0, 0), 0, RAMPS.dark);
    expect(dots.nearest(1, 0, 2)).toBe(1);
    expect(dots.nearest(4, 0, 2)).toBe(2);
    expect(dots.nearest(2.4, 3, 2)).toBeUndefined();
    dots.take(u(1, 2), f(0, 9), f(0, 0), 0.5, RAMPS.dark);
    dots.advance(0.5);
    expect(dots.nearest(5, 0, 1)).toBe(2);
    dots.advance(3);
    expect(dots.nearest(5, 0, 1)).toBeUndefined();
    expect(dots.nearest(9, 0, 1)).toBe(2);
  });
  it("refuse columns of different lengths", () => {
    expect(() => new Dots().take(u(1, 2), f(1), f(1), 0, RAMPS.dark)).toThrow(RangeError);
    expect(() => new Dots().take(u(1, 2), f(1, 1), f(1, 1), 0, RAMPS.dark, Uint8Array.of(3))).toThrow(RangeError);
  });
});

describe("the camera", () => {
  const padding = { top: 50, right: 300, bottom: 200, left: 100 };
  it("fits a box into what the panels leave free", () => {
    const camera = fitCamera({ x0: 0, y0: 0, x1: 100, y1: 40 }, 1400, 900, padding);
    const [x0, y1] = toScreen(camera, 1400, 900, [0, 40]);
    const [x1, y0] = toScreen(camera, 1400, 900, [100, 0]);
    expect(x0).toBeGreaterThanOrEqual(100 - 1e-6);
    expect(x1).toBeLessThanOrEqual(1100 + 1e-6);
    expect(y1).toBeGreaterThanOrEqual(50);
    expect(y0).toBeLessThanOrEqual(700);
  });
  it("puts a point into the middle of it", () => {
    const camera = lookAt([3, 4], 2, padding);
    expect(toScreen(camera, 1400, 900, [3, 4])).toEqual([600, 375]);
  });
  it("there and back is the same point", () => {
    const camera = { x: 12, y: -7, zoom: 1.3 };
    const [x, y] = toVenue(camera, 800, 600, toScreen(camera, 800, 600, [5, 6]));
    expect(x).toBeCloseTo(5);
    expect(y).toBeCloseTo(6);
  });
  it.each([0.3, 1, 2.7, 8, 55])("has a scale bar of 1, 2 or 5 times a power of ten at %d px a metre", (px) => {
    const bar = scaleBar(px, 120);
    expect(bar.px).toBeLessThanOrEqual(120);
    expect(bar.px).toBeGreaterThan(40);
    expect([1, 2, 5]).toContain(Math.round(bar.metres / 10 ** Math.floor(Math.log10(bar.metres) + 1e-9)));
  });
});

describe("where a dot may be", () => {
  it("is the ellipse that holds nine in ten of what the covariance spreads", () => {
    const cov = [4, 1.5, 2] as const;
    const random = chance(11);
    const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    const outline = regionOf([10, -5], cov);
    const l11 = Math.sqrt(cov[0]);
    const l21 = cov[1] / l11;
    const l22 = Math.sqrt(cov[2] - l21 ** 2);
    let inside = 0;
    for (let i = 0; i < 4000; i++) {
      const [a, b] = [normal(), normal()];
      if (covers([[outline]], 10 + l11 * a, -5 + l21 * a + l22 * b)) inside++;
    }
    expect(inside / 4000).toBeGreaterThan(0.88);
    expect(inside / 4000).toBeLessThan(0.92);
  });
  it("is a circle where all directions are alike, and can be seen where one has no spread", () => {
    const circle = axesOf([2, 0, 2]);
    expect(circle.longM).toBeCloseTo(circle.shortM);
    expect(circle.longM).toBeCloseTo(Math.sqrt(4.605 * 2));
    const line = axesOf([1, 1, 1]);
    expect(line.angleRad).toBeCloseTo(Math.PI / 4);
    expect(line.shortM).toBeCloseTo(0.1);
    for (const point of regionOf([0, 0], [1, 1, 1])) expect(point.every(Number.isFinite)).toBe(true);
  });
});
