/** Numbers in the browser's locale, times of the venue's clock, distances. Pure but for the locale. */
import { TICK_S } from "./client/frames";

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const one = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1, minimumFractionDigits: 1 });

export const count = (n: number): string => whole.format(n);
export const rate = (n: number): string => (n >= 100 ? whole.format(n) : one.format(n));

const share = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 0 });
/** A share of 0 to 1. */
export const percent = (x: number): string => share.format(x);
export const decimals = (x: number, digits: number): string =>
  new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(x);

/** Venue clock: hours, minutes, seconds since tick 0. */
export function venueTime(tick: number): string {
  const total = Math.max(0, Math.floor(tick * TICK_S));
  const pad = (n: number) => String(n).padStart(2, "0");
  return `${pad(Math.floor(total / 3600))}:${pad(Math.floor(total / 60) % 60)}:${pad(total % 60)}`;
}

export function duration(seconds: number): string {
  const unit = (value: number, name: "second" | "minute" | "hour") =>
    new Intl.NumberFormat(undefined, { style: "unit", unit: name, unitDisplay: "short", maximumFractionDigits: 0 }).format(value);
  if (seconds < 60) return unit(Math.round(seconds), "second");
  if (seconds < 5400) return unit(Math.round(seconds / 60), "minute");
  return unit(Math.round(seconds / 3600), "hour");
}

/** Walking distance in steps that a person can use: 5 m near, 10 m further. */
export function metres(m: number): string {
  const step = m < 50 ? 5 : 10;
  return new Intl.NumberFormat(undefined, { style: "unit", unit: "meter", maximumFractionDigits: 0 }).format(
    Math.max(step, Math.round(m / step) * step),
  );
}

/** Minor units to money; the currency says how many digits it has. */
export function money(minor: number, currency: string): string {
  const format = new Intl.NumberFormat(undefined, { style: "currency", currency });
  return format.format(minor / 10 ** (format.resolvedOptions().maximumFractionDigits ?? 2));
}

export function minorUnits(amount: number, currency: string): number {
  return Math.round(amount * 10 ** (new Intl.NumberFormat(undefined, { style: "currency", currency }).resolvedOptions().maximumFractionDigits ?? 2));
}
