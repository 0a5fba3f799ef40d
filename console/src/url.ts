/** The address holds the view, so that it can be shared; it never holds a token. Pure: text in, view out, and back. */

export type Layer = "people" | "density" | "heat" | "offers" | "labels";
export const LAYERS: readonly Layer[] = ["people", "density", "heat", "offers", "labels"];
/** People melt into the density field by themselves where they are many, so the field is not laid under the points unasked. */
export const DEFAULT_LAYERS: readonly Layer[] = ["people", "offers", "labels"];

/** What the right panel is for, where it is not the run or what is selected. */
export type Tool = "ways" | "zones" | "parking" | "edits" | "surge";
export const TOOLS: readonly Tool[] = ["ways", "zones", "parking", "edits", "surge"];

export type Camera = { x: number; y: number; zoom: number };

export type View =
  | { screen: "start" }
  | {
      screen: "operator";
      tenant: string;
      venue: string;
      level?: number;
      camera?: Camera;
      selected?: string;
      layers: readonly Layer[];
      tool?: Tool;
      /** Of a way: the id of a place, or `@level,x,y`. */
      from?: string;
      to?: string;
    }
  | { screen: "ar"; tenant: string; venue: string; level?: number; scene?: string; anchor?: string }
  | { screen: "shopper"; tenant: string; venue: string; location?: string };

const ANCHOR = /^[0-9a-f]{32}$/;
export const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$/;
const END = /^(@\d{1,3},-?\d+(\.\d+)?,-?\d+(\.\d+)?|[A-Za-z0-9][A-Za-z0-9._-]{0,95})$/;

function number(text: string | null): number | undefined {
  if (text === null || text.trim() === "") return undefined;
  const value = Number(text);
  return Number.isFinite(value) ? value : undefined;
}

/** What an address shows. Anything unreadable is left out rather than refused; an unknown path is the start page. */
export function parseView(hash: string): View {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [screen, tenant = "", venue = ""] = path.split("/").map(safeDecode);
  if (!NAME.test(tenant) || !NAME.test(venue)) return { screen: "start" };
  const q = new URLSearchParams(query);
  if (screen === "shopper") {
    const location = q.get("location");
    return { screen, tenant, venue, ...(location !== null && NAME.test(location) ? { location } : {}) };
  }
  if (screen !== "operator" && screen !== "ar") return { screen: "start" };
  const asked = number(q.get("level"));
  const level = asked !== undefined && Number.isInteger(asked) && asked >= 0 && asked < 255 ? { level: asked } : {};
  if (screen === "ar") {
    const [scene, anchor] = [q.get("scene"), q.get("anchor")];
    return {
      screen,
      tenant,
      venue,
      ...level,
      ...(scene !== null && NAME.test(scene) ? { scene } : {}),
      ...(anchor !== null && ANCHOR.test(anchor) ? { anchor } : {}),
    };
  }
  const [x, y, zoom] = (q.get("at") ?? "").split(",").map(number);
  const selected = q.get("unit");
  const layers = q.get("layers");
  const tool = TOOLS.find((known) => known === q.get("tool"));
  const [from, to] = [q.get("from"), q.get("to")];
  return {
    screen,
    tenant,
    venue,
    ...level,
    ...(x !== undefined && y !== undefined && zoom !== undefined && Math.abs(zoom) <= 12 ? { camera: { x, y, zoom } } : {}),
    ...(selected !== null && NAME.test(selected) ? { selected } : {}),
    layers: layers === null ? DEFAULT_LAYERS : LAYERS.filter((layer) => layers.split(",").includes(layer)),
    ...(tool === undefined ? {} : { tool }),
    ...(from !== null && END.test(from) ? { from } : {}),
    ...(to !== null && END.test(to) ? { to } : {}),
  };
}

function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

export function formatView(view: View): string {
  if (view.screen === "start") return "#/";
  const q: string[] = [];
  if (view.screen === "shopper") {
    if (view.location !== undefined) q.push(`location=${encodeURIComponent(view.location)}`);
  } else if (view.level !== undefined) q.push(`level=${view.level}`);
  if (view.screen === "ar") {
    if (view.scene !== undefined) q.push(`scene=${encodeURIComponent(view.scene)}`);
    if (view.anchor !== undefined) q.push(`anchor=${view.anchor}`);
  }
  if (view.screen === "operator") {
    if (view.camera !== undefined) q.push(`at=${view.camera.x.toFixed(1)},${view.camera.y.toFixed(1)},${view.camera.zoom.toFixed(2)}`);
    if (view.selected !== undefined) q.push(`unit=${encodeURIComponent(view.selected)}`);
    if (view.layers.join() !== DEFAULT_LAYERS.join()) q.push(`layers=${view.layers.join(",")}`);
    if (view.tool !== undefined) q.push(`tool=${view.tool}`);
    if (view.from !== undefined) q.push(`from=${encodeURIComponent(view.from)}`);
    if (view.to !== undefined) q.push(`to=${encodeURIComponent(view.to)}`);
  }
  const path = `#/${view.screen}/${encodeURIComponent(view.tenant)}/${encodeURIComponent(view.venue)}`;
  return q.length > 0 ? `${path}?${q.join("&")}` : path;
}
