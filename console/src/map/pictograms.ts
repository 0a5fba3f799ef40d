/** Standard pictograms, drawn by hand in a 16 x 16 box; a plate of the floor's colour keeps them legible on people. */

export type Pictogram = "elevator" | "stairs" | "restroom" | "up" | "down" | "parking" | "bar" | "medical" | "info" | "entrance" | "food" | "dot";

const PATHS: Record<Exclude<Pictogram, "parking" | "info">, string> = {
  elevator: "M5.2 7 L8 3.4 L10.8 7 Z M5.2 9 L8 12.6 L10.8 9 Z",
  stairs: "M3 12.6 h2.6 v-2.4 h2.4 v-2.4 h2.4 v-2.4 h2.6 v7.2 Z",
  restroom:
    "M4.9 2.8 a1.15 1.15 0 1 0 .01 0 Z M3.6 5.6 h2.6 v3.6 h-.5 v3.8 h-1.6 v-3.8 h-.5 Z M11.1 2.8 a1.15 1.15 0 1 0 .01 0 Z M10.3 5.6 h1.6 l1.2 4.2 h-1.1 v3.2 h-1.8 v-3.2 h-1.1 Z M7.75 2.8 h.5 v10.2 h-.5 Z",
  up: "M8 3 L12.4 8 H9.4 V13 H6.6 V8 H3.6 Z",
  down: "M8 13 L12.4 8 H9.4 V3 H6.6 V8 H3.6 Z",
  bar: "M3.4 3.4 h9.2 L8.8 8 v3.6 h2 v1.2 H5.2 v-1.2 h2 V8 Z",
  medical: "M6.4 3 h3.2 v3.4 H13 v3.2 H9.6 V13 H6.4 V9.6 H3 V6.4 h3.4 Z",
  entrance: "M3 7 h5.4 V3.8 L13 8 8.4 12.2 V9 H3 Z",
  food: "M4 2.8 h.9 v3.4 h.8 V2.8 h.9 v3.6 q0 1.4 -.9 1.8 V13 H4.9 V8.2 Q4 7.8 4 6.4 Z M10 2.8 q1.8 1 1.8 4 v1.8 h-.7 V13 H10 Z",
  dot: "M8 5.2 a2.8 2.8 0 1 0 .01 0 Z",
};

const made = new Map<string, Path2D>();

export function drawPictogram(ctx: CanvasRenderingContext2D, what: Pictogram, x: number, y: number, size: number, ink: string, plate: string): void {
  ctx.save();
  ctx.translate(x - size / 2, y - size / 2);
  ctx.scale(size / 16, size / 16);
  ctx.fillStyle = plate;
  ctx.beginPath();
  ctx.roundRect(0, 0, 16, 16, 4);
  ctx.fill();
  ctx.fillStyle = ink;
  if (what === "parking" || what === "info") {
    ctx.font = "700 11px 'Inter Variable', sans-serif";
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    ctx.fillText(what === "parking" ? "P" : "i", 8, 8.6);
  } else {
    let path = made.get(what);
    if (path === undefined) {
      path = new Path2D(PATHS[what]);
      made.set(what, path);
    }
    ctx.fill(path);
  }
  ctx.restore();
}

/** The pictogram of an amenity's or unit's category, IMDF's names and plain ones. */
export function pictogramOf(category: string): Pictogram | undefined {
  if (category.startsWith("restroom") || category.startsWith("toilet")) return "restroom";
  if (category.startsWith("elevator") || category === "lift") return "elevator";
  if (category === "stairs") return "stairs";
  if (category.startsWith("parking")) return "parking";
  if (category.includes("bar") || category.includes("drink")) return "bar";
  if (category.includes("food") || category.includes("restaurant")) return "food";
  if (category.includes("aid") || category.includes("medical")) return "medical";
  if (category.startsWith("info") || category.includes("service")) return "info";
  return undefined;
}
