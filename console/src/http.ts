/** The gateway's HTTP side, and where tokens live: in this tab's session storage, never in the address. */
import { RequestError } from "./client/wire";
import { completeVenue, type VenueDocument } from "./venue";

export type VenueLine = { tenant: string; id: string; name: string; kind: "mall" | "festival" };
export type ConsoleInfo = { ws_url: string; local_sign_in: boolean; venues: VenueLine[] };

/** The answer of a path, read by `read`. Rejects with RequestError. */
export async function getJson<T>(path: string, init?: RequestInit, read: (response: Response) => Promise<unknown> = (r) => r.json()): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, { ...init, signal: AbortSignal.timeout(15_000) });
    if (response.ok) return (await read(response)) as T; // a body that does not come in time is no answer either
  } catch {
    throw new RequestError("unavailable", "The server does not answer.", true);
  }
  const body = (await response.json().catch(() => ({}))) as { message?: string; detail?: string | { message?: string }; code?: string };
  const detail = typeof body.detail === "object" ? body.detail.message : body.detail;
  const code = { 401: "unauthenticated", 403: "forbidden", 404: "not_found" }[response.status] ?? body.code ?? "fault";
  throw new RequestError(
    code,
    body.message ?? detail ?? `${response.status} ${response.statusText}`,
    response.status >= 500 || response.status === 429,
  );
}

/** A request under the operator's token of this tab. */
export function authorised(tenant: string, method = "GET", body?: object): RequestInit {
  const headers: Record<string, string> = { authorization: `Bearer ${memory.get(`operator.${tenant}.token`) ?? ""}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  return { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
}

export const consoleInfo = (): Promise<ConsoleInfo> => getJson("v1/console");
/** With the token of this tab, where it has one: venues may not be public. */
export async function venueDocument(tenant: string, venue: string): Promise<VenueDocument> {
  const token = memory.get(`operator.${tenant}.token`) ?? memory.get(`shopper.${tenant}.token`);
  const init = token === undefined ? undefined : { headers: { authorization: `Bearer ${token}` } };
  return completeVenue(await getJson(`v1/venues/${encodeURIComponent(tenant)}/${encodeURIComponent(venue)}`, init));
}

export async function localToken(role: "operator" | "shopper", tenant: string): Promise<string> {
  const init = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ role, tenant }) };
  return (await getJson<{ token: string }>("v1/local/token", init)).token;
}

export const memory = {
  get(key: string): string | undefined {
    try {
      return sessionStorage.getItem(`esplanade.${key}`) ?? undefined;
    } catch {
      return undefined; // storage is closed to us: the tab forgets on reload, nothing else changes
    }
  },
  set(key: string, value: string | undefined): void {
    try {
      if (value === undefined) sessionStorage.removeItem(`esplanade.${key}`);
      else sessionStorage.setItem(`esplanade.${key}`, value);
    } catch {
      // as above
    }
  },
};
