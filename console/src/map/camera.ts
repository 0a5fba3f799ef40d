/** Where the map looks. Pure arithmetic on an orthographic camera: pixels a metre = 2 ** zoom; the camera's point stands in the middle of the canvas. */
import type { Bounds, Point } from "../venue";
import type { Camera } from "../url";

export type Padding = { top: number; right: number; bottom: number; left: number };
export const MIN_ZOOM = -3;
export const MAX_ZOOM = 6.5;

/** The camera that shows a box inside the part of the canvas that no panel covers. */
export function fitCamera(box: Bounds, width: number, height: number, padding: Padding): Camera {
  const w = Math.max(40, width - padding.left - padding.right);
  const h = Math.max(40, height - padding.top - padding.bottom);
  const scale = Math.min(w / Math.max(1, box.x1 - box.x0), h / Math.max(1, box.y1 - box.y0));
  const zoom = Math.min(MAX_ZOOM, Math.max(MIN_ZOOM, Math.log2(scale)));
  return lookAt([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2], zoom, padding);
}

/** The camera that puts a point in the middle of the uncovered part. */
export function lookAt(point: Point, zoom: number, padding: Padding): Camera {
  const px = 2 ** zoom;
  return { x: point[0] - (padding.left - padding.right) / 2 / px, y: point[1] + (padding.top - padding.bottom) / 2 / px, zoom };
}

export function toScreen(camera: Camera, width: number, height: number, [x, y]: Point): Point {
  const px = 2 ** camera.zoom;
  return [width / 2 + (x - camera.x) * px, height / 2 - (y - camera.y) * px];
}

export function toVenue(camera: Camera, width: number, height: number, [sx, sy]: Point): Point {
  const px = 2 ** camera.zoom;
  return [camera.x + (sx - width / 2) / px, camera.y - (sy - height / 2) / px];
}

/** A round length for the scale bar at most `maxPx` long: 1, 2 or 5 times a power of ten metres. */
export function scaleBar(pxPerM: number, maxPx: number): { metres: number; px: number } {
  const most = maxPx / pxPerM;
  const power = 10 ** Math.floor(Math.log10(most));
  const metres = [5, 2, 1].map((m) => m * power).find((m) => m <= most) ?? power;
  return { metres, px: metres * pxPerM };
}
