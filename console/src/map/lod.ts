/** Level of detail: people are points; above FADE_FROM on screen they melt into a density field. Pure. */

export const FADE_FROM = 4000;
export const FADE_TO = 6000;

/** Weight of the density field, 0 (points only) to 1 (field only): continuous in the number on screen, so that the change has no jump. */
export function fieldWeight(onScreen: number): number {
  const t = Math.min(1, Math.max(0, (onScreen - FADE_FROM) / (FADE_TO - FADE_FROM)));
  return t * t * (3 - 2 * t);
}

const DISCS_FROM_PX = 4;
const DISCS_FULL_PX = 6;
const DISCS_FULL = 40;
const DISCS_NONE = 80;

/** Weight of the discs that say how sure every dot is, 0 to 1: only near and with few in view, where one can tell whose is whose. */
export function discWeight(pxPerM: number, onScreen: number): number {
  const near = (pxPerM - DISCS_FROM_PX) / (DISCS_FULL_PX - DISCS_FROM_PX);
  const few = (DISCS_NONE - onScreen) / (DISCS_NONE - DISCS_FULL);
  return Math.min(1, Math.max(0, near)) * Math.min(1, Math.max(0, few));
}

/** Move `current` toward `target` in `dtS` seconds, all the way in about `overS`; at once where motion is unwanted (overS 0). */
export function ease(current: number, target: number, dtS: number, overS: number): number {
  if (overS <= 0) return target;
  const step = dtS / overS;
  return Math.abs(target - current) <= step ? target : current + Math.sign(target - current) * step;
}

/** Radius of a person's dot in pixels at a scale (pixels a metre): 0.3 m wide people, never too small to see nor large enough to hide the plan. */
export function dotRadius(pxPerM: number): number {
  return Math.min(6, Math.max(1.8, 0.35 * pxPerM));
}
