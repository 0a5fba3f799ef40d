/**
 * Names and pictograms over the map, on a canvas of their own: text is shaped by the browser (Arabic, Devanagari, right-to-left), which a glyph atlas cannot do.
 * Owns what is placed where for one level; redrawn when the camera, the level or the theme changes, not when people move.
 */
import type { Bounds, Point, VenueIndex } from "../venue";
import type { Figure } from "./figures";
import { type LabelBox, placeLabels, priorityOf, wrap } from "./labels";
import { drawPictogram, type Pictogram, pictogramOf } from "./pictograms";

export type Projection = { toScreen: (p: Point) => Point; pxPerM: number; width: number; height: number };
export type OverlayTokens = { label: string; quiet: string; halo: string; plate: string; rim: string; accent: string };

type Name = { text: string; point: Point; sizeM: [number, number]; priority: number; quiet: boolean };
type Sign = { what: Pictogram; point: Point; priority: number; fromZoomPx: number; note?: string; accent?: boolean };
type Lane = { a: Point; b: Point };
type Note = Extract<Figure, { kind: "name" }>;
const NOTE_PX = 12;
const NOTE_PRIORITY = 1e5;

export class Overlay {
  readonly #ctx: CanvasRenderingContext2D;
  #names: Name[] = [];
  #signs: Sign[] = [];
  #lanes: Lane[] = [];
  #notes: readonly Note[] = [];
  #level = 0;
  readonly #widths = new Map<string, number>();

  constructor(
    readonly canvas: HTMLCanvasElement,
    private index: VenueIndex,
  ) {
    this.#ctx = canvas.getContext("2d")!;
  }

  /** The same venue after its map was edited; `setLevel` is to follow. */
  setIndex(index: VenueIndex): void {
    this.index = index;
  }

  /** Names that panels write over the plan; they go before all others. */
  setNotes(notes: readonly Note[]): void {
    this.#notes = notes;
  }

  setLevel(level: number): void {
    this.#level = level;
    const { doc } = this.index;
    const id = doc.levels[level]?.id;
    this.#names = (this.index.spotsByLevel[level] ?? [])
      .filter(
        (spot) =>
          spot.name !== "" &&
          pictogramOf(spot.category) !== "restroom" &&
          !["stairs", "escalator", "elevator", "parking", "opentobelow"].includes(spot.category),
      )
      .map((spot) => {
        const b = boxOf(spot.polygon);
        const quiet = !spot.isShop && spot.kind === "unit";
        return {
          text: spot.name,
          point: spot.centre,
          sizeM: [b.x1 - b.x0, b.y1 - b.y0],
          priority: priorityOf(spot.areaM2, spot.popularity, spot.kind === "zone") - (quiet ? 4 : 0),
          quiet,
        };
      });
    const signs: Sign[] = [];
    const lanes: Lane[] = [];
    for (const c of doc.connectors) {
      const here = c.stops.findIndex((s) => s.level_id === id);
      if (here < 0) continue;
      const stop = c.stops[here]!;
      if (c.access === "staff") continue;
      if (c.kind === "elevator") signs.push({ what: "elevator", point: stop.point, priority: 30, fromZoomPx: 1.2 });
      else if (c.kind === "stairs") signs.push({ what: "stairs", point: stop.point, priority: 22, fromZoomPx: 2.4 });
      if (c.kind !== "escalator" && c.kind !== "ramp") continue;
      const steps: [number, boolean][] = [];
      if (here + 1 < c.stops.length && c.direction !== "backward") steps.push([here + 1, true]);
      if (here > 0 && c.direction !== "forward") steps.push([here - 1, true]);
      for (const [other] of steps) {
        const there = c.stops[other]!;
        const to = this.index.levelIndex.get(there.level_id) ?? level;
        signs.push({
          what: to > level ? "up" : "down",
          point: stop.point,
          priority: 28,
          fromZoomPx: 1.6,
          note: doc.levels[to]?.short_name ?? "",
        });
        if (Math.hypot(there.point[0] - stop.point[0], there.point[1] - stop.point[1]) > 2) lanes.push({ a: stop.point, b: there.point });
      }
      // The far end of an escalator that arrives here: its lane is drawn too, pointing at us.
      if (steps.length === 0) {
        const from = c.direction === "forward" ? c.stops[here - 1] : c.stops[here + 1];
        if (from && Math.hypot(from.point[0] - stop.point[0], from.point[1] - stop.point[1]) > 2) lanes.push({ a: from.point, b: stop.point });
      }
    }
    for (const amenity of doc.amenities) {
      const what = pictogramOf(amenity.category);
      if (amenity.level_id === id && what !== undefined) signs.push({ what, point: amenity.point, priority: 26, fromZoomPx: 1.2 });
    }
    const covered = (p: Point) => signs.some((s) => Math.hypot(s.point[0] - p[0], s.point[1] - p[1]) < 6);
    for (const spot of this.index.spotsByLevel[level] ?? []) {
      const what = ["parking"].includes(spot.category) ? undefined : pictogramOf(spot.category);
      if (spot.kind === "unit" && (what === "restroom" || what === "elevator" || what === "stairs") && !covered(spot.centre)) {
        signs.push({ what, point: spot.centre, priority: what === "restroom" ? 26 : 18, fromZoomPx: 1.4 });
      }
    }
    for (const entrance of doc.entrances) {
      if (entrance.level_id === id)
        signs.push({
          what: entrance.kind === "parking" ? "parking" : "entrance",
          point: entrance.point,
          priority: 40,
          fromZoomPx: 0,
          note: entrance.name,
          accent: true,
        });
    }
    this.#signs = signs;
    this.#lanes = lanes;
  }

  draw(view: Projection, tokens: OverlayTokens, labels: boolean, clearing?: { x: number; y: number; radius: number }): void {
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    const { canvas } = this;
    if (canvas.width !== Math.round(view.width * ratio) || canvas.height !== Math.round(view.height * ratio)) {
      canvas.width = Math.round(view.width * ratio);
      canvas.height = Math.round(view.height * ratio);
    }
    const ctx = this.#ctx;
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, view.width, view.height);
    if (view.pxPerM > 2) this.#drawLanes(view, tokens);
    if (!labels) return;
    const onScreen = ([x, y]: Point) => x > -80 && y > -40 && x < view.width + 80 && y < view.height + 40;
    const boxes: LabelBox[] = [];
    const draws: (() => void)[] = [];
    if (clearing) {
      boxes.push({ x: clearing.x, y: clearing.y, width: 2 * clearing.radius, height: 2 * clearing.radius, priority: 1e6 });
      draws.push(() => undefined);
    }
    for (const note of this.#notes) {
      const at = view.toScreen(note.point);
      if (note.level !== this.#level || !onScreen(at)) continue;
      const y = at[1] + (note.belowPx ?? 0);
      boxes.push({ x: at[0], y, width: this.#measure(note.text, NOTE_PX, 640), height: NOTE_PX * 1.15, priority: NOTE_PRIORITY });
      draws.push(() => this.#text([note.text], at[0], y, NOTE_PX, 640, tokens.accent, tokens.halo));
    }
    const size = Math.min(20, Math.max(14, 10 + view.pxPerM * 0.7));
    for (const sign of this.#signs) {
      if (view.pxPerM < sign.fromZoomPx) continue;
      const at = view.toScreen(sign.point);
      if (!onScreen(at)) continue;
      boxes.push({ x: at[0], y: at[1], width: size, height: size, priority: 100 + sign.priority });
      draws.push(() => {
        drawPictogram(
          ctx,
          sign.what,
          at[0],
          at[1],
          size,
          sign.accent ? tokens.plate : tokens.quiet,
          sign.accent ? tokens.accent : tokens.plate,
          tokens.rim,
        );
      });
      if (sign.note && (view.pxPerM > 4 || (sign.accent && view.pxPerM > 2.2))) {
        const text = sign.note;
        this.#font(10.5, 600);
        const width = this.#measure(text, 10.5, 600);
        boxes.push({ x: at[0], y: at[1] + size / 2 + 8, width, height: 12, priority: 60 + sign.priority });
        draws.push(() => this.#text([text], at[0], at[1] + size / 2 + 8, 10.5, 600, tokens.quiet, tokens.halo));
      }
    }
    for (const name of this.#names) {
      const at = view.toScreen(name.point);
      if (!onScreen(at)) continue;
      const px = Math.min(15, Math.max(10.5, 8.5 + name.priority * 0.28));
      const weight = name.quiet ? 450 : 560;
      const room = name.sizeM[0] * view.pxPerM;
      const lines = wrap(name.text, Math.max(8, Math.floor(room / (px * 0.55))));
      const width = Math.max(...lines.map((line) => this.#measure(line, px, weight)));
      // A name must stand on its own place: up to a third wider is fine, more would name the neighbour.
      if (width > room * 1.35 + 8 || lines.length * px * 1.15 > name.sizeM[1] * view.pxPerM + 10) continue;
      boxes.push({ x: at[0], y: at[1], width, height: lines.length * px * 1.15, priority: name.priority });
      draws.push(() => this.#text(lines, at[0], at[1], px, weight, name.quiet ? tokens.quiet : tokens.label, tokens.halo));
    }
    for (const i of placeLabels(boxes, 4)) draws[i]!();
  }

  #drawLanes(view: Projection, tokens: OverlayTokens): void {
    const ctx = this.#ctx;
    ctx.strokeStyle = tokens.quiet;
    ctx.lineWidth = Math.min(2, Math.max(1, view.pxPerM / 6));
    ctx.lineCap = "round";
    ctx.lineJoin = "round";
    for (const { a, b } of this.#lanes) {
      const [x0, y0] = view.toScreen(a);
      const [x1, y1] = view.toScreen(b);
      const length = Math.hypot(x1 - x0, y1 - y0);
      if (length < 14) continue;
      const ux = (x1 - x0) / length;
      const uy = (y1 - y0) / length;
      const h = Math.min(5, Math.max(2, view.pxPerM * 0.35));
      ctx.beginPath();
      for (let d = length * 0.3; d < length * 0.85; d += Math.max(9, length / 5)) {
        const x = x0 + ux * d;
        const y = y0 + uy * d;
        ctx.moveTo(x - ux * h - uy * h, y - uy * h + ux * h);
        ctx.lineTo(x, y);
        ctx.lineTo(x - ux * h + uy * h, y - uy * h - ux * h);
      }
      ctx.stroke();
    }
  }

  #font(px: number, weight: number): void {
    this.#ctx.font = `${weight} ${px}px "Inter Variable", system-ui, sans-serif`;
  }

  #measure(text: string, px: number, weight: number): number {
    const key = `${weight}|${text}`;
    let at10 = this.#widths.get(key);
    if (at10 === undefined) {
      this.#font(10, weight);
      at10 = this.#ctx.measureText(text).width;
      this.#widths.set(key, at10);
    }
    return (at10 * px) / 10;
  }

  /** Forget measured widths: the font has arrived. */
  fontReady(): void {
    this.#widths.clear();
  }

  #text(lines: string[], x: number, y: number, px: number, weight: number, ink: string, halo: string): void {
    const ctx = this.#ctx;
    this.#font(px, weight);
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    ctx.lineJoin = "round";
    ctx.lineWidth = 3;
    ctx.strokeStyle = halo;
    ctx.fillStyle = ink;
    const step = px * 1.15;
    lines.forEach((line, i) => {
      const yy = y + (i - (lines.length - 1) / 2) * step;
      ctx.strokeText(line, x, yy);
      ctx.fillText(line, x, yy);
    });
  }
}

function boxOf(shape: Point[][][]): Bounds {
  const b = { x0: Infinity, y0: Infinity, x1: -Infinity, y1: -Infinity };
  for (const polygon of shape)
    for (const [x, y] of polygon[0] ?? []) {
      b.x0 = Math.min(b.x0, x);
      b.y0 = Math.min(b.y0, y);
      b.x1 = Math.max(b.x1, x);
      b.y1 = Math.max(b.y1, y);
    }
  return b;
}
