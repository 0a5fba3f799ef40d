/** Dark or light: what the system prefers, until the person chooses. Owns the attribute on the root element and the tokens read back for the canvas. */
import { signal } from "@preact/signals";

export type Theme = "dark" | "light";
const KEY = "esplanade.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

function chosen(): Theme | undefined {
  try {
    const value = localStorage.getItem(KEY);
    return value === "dark" || value === "light" ? value : undefined;
  } catch {
    return undefined;
  }
}

export const theme = signal<Theme>(chosen() ?? (dark.matches ? "dark" : "light"));
const apply = () => {
  document.documentElement.dataset.theme = theme.value;
};
theme.subscribe(apply);
dark.addEventListener("change", () => {
  if (chosen() === undefined) theme.value = dark.matches ? "dark" : "light";
});

export function toggleTheme(): void {
  theme.value = theme.value === "dark" ? "light" : "dark";
  try {
    localStorage.setItem(KEY, theme.value);
  } catch {
    // the choice lasts as long as the page
  }
}

const still = matchMedia("(prefers-reduced-motion: reduce)");
export const reducedMotion = (): boolean => still.matches;

export type Rgba = [number, number, number, number];
/** A colour token (hex) for WebGL. */
export function token(name: string, alpha = 255): Rgba {
  let hex = css(name).replace("#", "");
  if (hex.length === 3) hex = hex.replace(/./g, "$&$&"); // the build shortens #ffffff to #fff
  const n = Number.parseInt(hex, 16);
  return [(n >> 16) & 255, (n >> 8) & 255, n & 255, alpha];
}
export function css(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
