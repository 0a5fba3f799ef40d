/** When to try again, and whether to. Pure: chance is an argument. */

export const FIRST_S = 0.5;
export const LAST_S = 15;

/** Seconds to wait before try number `attempt` (0 first): doubling, capped, with jitter above one half so that a crowd does not return as one. */
export function backoff(attempt: number, random: () => number): number {
  const bound = Math.min(LAST_S, FIRST_S * 2 ** Math.min(attempt, 10));
  return bound / 2 + (bound / 2) * random();
}

export const SPREAD_S = 1;
/** Seconds to wait where the server said `told`: not before, and spread a little after it, so that those who were told the same do not return as one. */
export function asTold(told: number, random: () => number): number {
  return told + Math.min(told, SPREAD_S) * random();
}

const PATIENCE_S: readonly [number, number] = [10, 60];
/** Seconds to wait for welcome in try number `attempt`: attempts that all end just before their answer would keep a busy gateway busy for ever. */
export function patience(attempt: number): number {
  return Math.min(PATIENCE_S[1], PATIENCE_S[0] * 2 ** Math.min(attempt, 10));
}

export type Verdict = "reconnect" | "new_token" | "give_up";

/** What a WebSocket close code asks of the client (gateway/codes.py): 4000-4099 give up, 4100-4199 reconnect, 4200-4299 reconnect with a new token. */
export function verdictOf(code: number): Verdict {
  if (code === 4003) return "new_token";
  if (code >= 4000 && code < 4100) return "give_up";
  if (code >= 4200 && code < 4300) return "new_token";
  // 1002, 1003, 1007, 1009, 1010: what we send is wrong, and would be again.
  return [1002, 1003, 1007, 1009, 1010].includes(code) ? "give_up" : "reconnect";
}
