/** The ground that a position's covariance says somebody is on, nine times in ten. Pure. */
import type { Point } from "../venue";

/** xx, xy, yy in m². */
export type Covariance = readonly [number, number, number];
/** The 90 % point of chi-square with two degrees of freedom. */
const CHI2_90 = 4.605;
const CORNERS = 64;
/** A region thinner than this is drawn this thin, so that it can be seen, metres. */
const THINNEST_M = 0.1;

/** The half axes of the 90 % ellipse, metres, the longer first, and the longer one's direction from the x axis. */
export function axesOf([xx, xy, yy]: Covariance): { longM: number; shortM: number; angleRad: number } {
  const middle = (xx + yy) / 2;
  const off = Math.hypot((xx - yy) / 2, xy);
  const half = (variance: number) => Math.max(THINNEST_M, Math.sqrt(CHI2_90 * Math.max(0, variance)));
  return { longM: half(middle + off), shortM: half(middle - off), angleRad: Math.atan2(2 * xy, xx - yy) / 2 };
}

/** The ellipse's outline, counter-clockwise, not closed. */
export function regionOf(point: Point, cov: Covariance): Point[] {
  const { longM, shortM, angleRad } = axesOf(cov);
  const [c, s] = [Math.cos(angleRad), Math.sin(angleRad)];
  return Array.from({ length: CORNERS }, (_, i) => {
    const t = (2 * Math.PI * i) / CORNERS;
    const [u, v] = [longM * Math.cos(t), shortM * Math.sin(t)];
    return [point[0] + u * c - v * s, point[1] + u * s + v * c];
  });
}
