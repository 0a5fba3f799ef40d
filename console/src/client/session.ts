/** A wire for a view: the token's and the place's storage, the socket's address, and the connection's state as a signal. */
import { signal } from "@preact/signals";
import { consoleInfo, localToken, memory } from "../http";
import { refreshed } from "../signin";
import type { Place } from "./frames";
import { RequestError, Wire, type WireState } from "./wire";

export const newId = (): string => Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");

/** ws_url may be absolute or a path; a page served over TLS needs wss. */
export function socketUrl(wsUrl: string): string {
  const url = new URL(wsUrl, location.href);
  if (url.protocol === "http:") url.protocol = "ws:";
  if (url.protocol === "https:") url.protocol = "wss:";
  return url.href;
}

export async function openSession(role: "operator" | "shopper", tenant: string, venue: string) {
  const info = await consoleInfo();
  const tokenKey = `${role}.${tenant}.token`;
  const placeKey = `${role}.${tenant}.${venue}.place`;
  const state = signal<WireState>({ kind: "connecting" });
  let resume: Place | undefined;
  try {
    resume = JSON.parse(memory.get(placeKey) ?? "null") ?? undefined;
  } catch {
    resume = undefined;
  }
  const token = async (refused: boolean): Promise<string | undefined> => {
    if (refused) memory.set(tokenKey, undefined);
    const known = memory.get(tokenKey);
    if (known !== undefined) return known;
    const next = role === "operator" ? await refreshed(tenant) : undefined;
    if (next !== undefined) return next;
    if (role === "shopper") return undefined; // comes as a guest; the welcome brings a token
    if (!info.local_sign_in) throw new RequestError("unauthenticated", "an operator signs in with a token", false);
    const fresh = await localToken("operator", tenant);
    memory.set(tokenKey, fresh);
    return fresh;
  };
  const wire = new Wire({
    url: socketUrl(info.ws_url),
    client: `console-${newId()}`, // one a page load: `seq` starts at 1 again
    venue,
    token,
    guestOf: role === "shopper" ? tenant : undefined,
    resume: role === "shopper" ? resume : undefined,
    onState: (next) => {
      state.value = next;
    },
    onToken: (fresh) => memory.set(tokenKey, fresh),
    onPlace: (place) => memory.set(placeKey, JSON.stringify(place)),
  });
  return { wire, state, useToken: (text: string) => memory.set(tokenKey, text) };
}
export type Session = Awaited<ReturnType<typeof openSession>>;
