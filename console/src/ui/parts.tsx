/** Small parts that both views use. */
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { RequestError, WireState } from "../client/wire";
import { duration } from "../format";
import { s } from "../strings";
import { theme, toggleTheme } from "./theme";

export function ThemeButton() {
  const dark = theme.value === "dark";
  return (
    <button
      type="button"
      class="icon"
      aria-label={dark ? s.theme.toLight : s.theme.toDark}
      title={dark ? s.theme.toLight : s.theme.toDark}
      onClick={toggleTheme}
    >
      <svg viewBox="0 0 16 16" aria-hidden="true">
        {dark ? (
          <path
            d="M8 5a3 3 0 1 1 0 6 3 3 0 0 1 0-6ZM8 1.2v1.6M8 13.2v1.6M1.2 8h1.6M13.2 8h1.6M3.2 3.2l1.1 1.1M11.7 11.7l1.1 1.1M12.8 3.2l-1.1 1.1M4.3 11.7l-1.1 1.1"
            fill="none"
            stroke="currentColor"
            stroke-width="1.5"
            stroke-linecap="round"
          />
        ) : (
          <path d="M13 9.6A5.4 5.4 0 0 1 6.4 3 5.4 5.4 0 1 0 13 9.6Z" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linejoin="round" />
        )}
      </svg>
    </button>
  );
}

/** A state with a sentence and a next step. */
export function Notice(props: { title: string; next: string; alert?: boolean; children?: ComponentChildren }) {
  return (
    <section class="notice" role={props.alert ? "alert" : "status"}>
      <h1>{props.title}</h1>
      <p>{props.next}</p>
      <div class="row">{props.children}</div>
    </section>
  );
}

/** A number that grows while the view is out of touch. */
export function useSeconds(active: boolean): number {
  const [, again] = useState(0);
  useEffect(() => {
    if (!active) return;
    const timer = setInterval(() => again((n) => n + 1), 1000);
    return () => clearInterval(timer);
  }, [active]);
  return performance.now();
}

/** How the connection is: quiet when live, a sentence with an age and a way out when not. */
export function Connection({ state, lastHeard, onRetry }: { state: WireState; lastHeard: number; onRetry: () => void }) {
  const now = useSeconds(state.kind === "lost");
  if (state.kind === "live") {
    return (
      <span class="live" role="status">
        <i aria-hidden="true" />
        {s.states.live}
      </span>
    );
  }
  if (state.kind === "connecting") {
    return (
      <span class="live waiting" role="status">
        <i aria-hidden="true" />
        {s.states.connecting}
      </span>
    );
  }
  if (state.kind === "stopped") return null;
  const age = duration(Math.max(0, (now - (lastHeard || state.since)) / 1000));
  return (
    <span class="live lost" role="status" data-state="lost">
      <i aria-hidden="true" />
      {s.states.lost(age)}
      <button type="button" class="link" onClick={onRetry}>
        {s.states.retryNow}
      </button>
    </span>
  );
}

/** Whether who is signed in may not see an operator's screen, or nobody is. */
export function isDenied(state: WireState | undefined, failure: RequestError | undefined): boolean {
  if (failure?.code === "forbidden" || failure?.code === "unauthenticated") return true;
  if (state?.kind === "live") return !["operator", "engineer"].includes(state.welcome.role);
  return state?.kind === "stopped" && /unauthenticated|forbidden|close_4003/.test(state.code);
}

export function SignIn({
  onToken,
  onPassword,
  onBack,
  denied,
}: {
  onToken: (token: string) => void;
  onPassword: () => void;
  onBack: string;
  denied?: string | undefined;
}) {
  const [text, setText] = useState("");
  return (
    <form
      class="notice"
      onSubmit={(event) => {
        event.preventDefault();
        if (text.trim()) onToken(text.trim());
      }}
    >
      <h1>{s.states.denied}</h1>
      <p>{denied ?? s.states.deniedNext}</p>
      <div class="row">
        <button type="button" class="primary" onClick={onPassword}>
          {s.states.signInPassword}
        </button>
      </div>
      <label>
        {s.states.token}
        <input type="password" autocomplete="off" value={text} onInput={(e) => setText(e.currentTarget.value)} />
      </label>
      <p class="quiet">{s.states.signInNext}</p>
      <div class="row">
        <button type="submit" disabled={!text.trim()}>
          {s.states.signIn}
        </button>
        <a class="button" href={onBack}>
          {s.back}
        </a>
      </div>
    </form>
  );
}
