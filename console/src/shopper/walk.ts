/** A person who walks where they tapped: straight, at walking speed, never off the floor. Pure: time is an argument. */
import { covers, type MultiPolygon, type Point } from "../venue";

/** Walking speed, m/s. */
export const SPEED = 1.4;

export type Walker = { point: Point; target?: Point; headingRad?: number };

/** Where the walker is `dtS` seconds later. Stops at the target, and at the edge of the floor. */
export function step(walker: Walker, dtS: number, floor: MultiPolygon): Walker {
  const { point, target } = walker;
  if (target === undefined) return walker;
  const dx = target[0] - point[0];
  const dy = target[1] - point[1];
  const distance = Math.hypot(dx, dy);
  if (distance < 1e-6) return { ...walker, target: undefined };
  const headingRad = Math.atan2(dy, dx);
  const length = Math.min(distance, SPEED * dtS);
  const next: Point = [point[0] + (dx / distance) * length, point[1] + (dy / distance) * length];
  if (!covers(floor, next[0], next[1]) && covers(floor, point[0], point[1])) return { point, headingRad };
  return { point: next, headingRad, target: length >= distance ? undefined : target };
}

/** Seconds on foot in a straight line. */
export const seconds = (metres: number): number => metres / SPEED;
