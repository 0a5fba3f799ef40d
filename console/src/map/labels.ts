/** Which names are drawn: none overlaps another, the more important first. Pure: boxes in pixels in, indices out. */

export type LabelBox = { x: number; y: number; width: number; height: number; priority: number };

const CELL = 64;

/** Indices of the boxes to draw (centre x, y), by falling priority, ties by index; no two closer than `gap` pixels. O(n) over a grid of cells. */
export function placeLabels(boxes: readonly LabelBox[], gap = 3): number[] {
  const order = boxes.map((_, i) => i).sort((i, j) => boxes[j]!.priority - boxes[i]!.priority || i - j);
  const cells = new Map<number, LabelBox[]>();
  const taken: number[] = [];
  for (const i of order) {
    const box = boxes[i]!;
    const x0 = Math.floor((box.x - box.width / 2 - gap) / CELL);
    const x1 = Math.floor((box.x + box.width / 2 + gap) / CELL);
    const y0 = Math.floor((box.y - box.height / 2 - gap) / CELL);
    const y1 = Math.floor((box.y + box.height / 2 + gap) / CELL);
    let free = true;
    for (let cx = x0; free && cx <= x1; cx++)
      for (let cy = y0; free && cy <= y1; cy++) {
        for (const other of cells.get(cx * 100_003 + cy) ?? []) {
          if (overlap(box, other, gap)) {
            free = false;
            break;
          }
        }
      }
    if (!free) continue;
    taken.push(i);
    for (let cx = x0; cx <= x1; cx++)
      for (let cy = y0; cy <= y1; cy++) {
        const key = cx * 100_003 + cy;
        const cell = cells.get(key);
        if (cell) cell.push(box);
        else cells.set(key, [box]);
      }
  }
  return taken;
}

export function overlap(a: LabelBox, b: LabelBox, gap = 0): boolean {
  return Math.abs(a.x - b.x) * 2 < a.width + b.width + 2 * gap && Math.abs(a.y - b.y) * 2 < a.height + b.height + 2 * gap;
}

/** Importance of a place's name: area and popularity, on one scale; zones (stages, plazas) stand above shops of their size. */
export function priorityOf(areaM2: number, popularity: number, isZone: boolean): number {
  return Math.log2(1 + areaM2) + 1.5 * Math.log2(1 + popularity) + (isZone ? 1 : 0);
}

/** Split a name over at most two lines of about equal length. */
export function wrap(name: string, maxChars: number): string[] {
  if (name.length <= maxChars || !name.includes(" ")) return [name];
  const words = name.split(/\s+/);
  let best: string[] = [name];
  let longest = name.length;
  for (let i = 1; i < words.length; i++) {
    const lines = [words.slice(0, i).join(" "), words.slice(i).join(" ")];
    const width = Math.max(lines[0]!.length, lines[1]!.length);
    if (width < longest) {
      longest = width;
      best = lines;
    }
  }
  return best;
}
