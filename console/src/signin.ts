/** An operator signs in: OAuth 2.0 code flow with PKCE (docs/security.md), on the API's own page and back. Tokens stay in this tab's session storage. */
import { memory } from "./http";

type Begun = { verifier: string; state: string; back: string };
type Granted = { access_token: string; refresh_token: string; tenant: string; role: string };

const BEGUN = "signin";
const tokenKey = (tenant: string): string => `operator.${tenant}.token`;
const refreshKey = (tenant: string): string => `operator.${tenant}.refresh`;

const base64url = (bytes: Uint8Array): string =>
  btoa(String.fromCharCode(...bytes))
    .replace(/\+/g, "-")
    .replace(/\//g, "_")
    .replace(/=+$/, "");

/** The S256 challenge of a verifier (RFC 7636, 4.2). */
export async function challengeOf(verifier: string): Promise<string> {
  return base64url(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier))));
}

const home = (): string => `${location.origin}/`;

/** Leave for the sign-in page; `finishSignIn` goes on when it comes back. */
export async function startSignIn(tenant: string): Promise<void> {
  const begun: Begun = {
    verifier: base64url(crypto.getRandomValues(new Uint8Array(48))),
    state: base64url(crypto.getRandomValues(new Uint8Array(16))),
    back: location.hash,
  };
  memory.set(BEGUN, JSON.stringify(begun));
  const wanted = new URLSearchParams({
    response_type: "code",
    client_id: "console",
    redirect_uri: home(),
    state: begun.state,
    code_challenge: await challengeOf(begun.verifier),
    code_challenge_method: "S256",
    tenant,
  });
  location.assign(`/v1/authorize?${wanted}`);
}

/** Where the address is an answer of the sign-in page: take the tokens, and put the view's address back before anything looks at it. An answer that we did not ask for is dropped. */
export async function finishSignIn(): Promise<void> {
  const answer = new URLSearchParams(location.search);
  const code = answer.get("code");
  if (code === null) return;
  const begun = JSON.parse(memory.get(BEGUN) ?? "null") as Begun | null;
  memory.set(BEGUN, undefined);
  history.replaceState(null, "", `/${begun?.back ?? ""}`);
  if (begun === null || answer.get("state") !== begun.state) return;
  const granted = await grant({
    grant_type: "authorization_code",
    code,
    code_verifier: begun.verifier,
    client_id: "console",
    redirect_uri: home(),
  });
  if (granted !== undefined) keep(granted);
}

/** The next access token of a tenant's sign-in; undefined where there is none, or it has ended. */
export async function refreshed(tenant: string): Promise<string | undefined> {
  const refresh = memory.get(refreshKey(tenant));
  if (refresh === undefined) return undefined;
  memory.set(refreshKey(tenant), undefined); // it is good for one use, whatever comes of this one
  const granted = await grant({ grant_type: "refresh_token", refresh_token: refresh });
  if (granted !== undefined) keep(granted);
  return granted?.access_token;
}

function keep(granted: Granted): void {
  memory.set(tokenKey(granted.tenant), granted.access_token);
  memory.set(refreshKey(granted.tenant), granted.refresh_token);
}

async function grant(form: Record<string, string>): Promise<Granted | undefined> {
  try {
    const reply = await fetch("/v1/token", { method: "POST", body: new URLSearchParams(form), signal: AbortSignal.timeout(15_000) });
    return reply.ok ? ((await reply.json()) as Granted) : undefined;
  } catch {
    return undefined; // the view says that nobody is signed in
  }
}
