/** What all of an operator's screens share: the session and what stands in its way, the list of levels, the panel at the side. */
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { openSession, type Session } from "../client/session";
import type { RequestError, Wire } from "../client/wire";
import { startSignIn } from "../signin";
import { s } from "../strings";
import { Connection, isDenied, Notice, SignIn } from "../ui/parts";
import { formatView } from "../url";
import type { VenueIndex } from "../venue";

/** The level that a newcomer looks at: where people come in, else the lowest at or above ground. */
export function firstLevel(index: VenueIndex): number {
  const entrance = index.doc.entrances.find((e) => e.kind === "pedestrian");
  if (entrance) return index.levelIndex.get(entrance.level_id) ?? 0;
  return Math.max(
    0,
    index.doc.levels.findIndex((l) => l.ordinal >= 0),
  );
}

/** A session in a venue and what is made of it, both closed with the screen. */
export function useOperator<Model extends { close(): void }>(tenant: string, venue: string, make: (wire: Wire, venue: string) => Model) {
  const [session, setSession] = useState<Session>();
  const [model, setModel] = useState<Model>();
  const [failure, setFailure] = useState<RequestError>();
  useEffect(() => {
    let open: Session | undefined;
    let fed: Model | undefined;
    let gone = false;
    openSession("operator", tenant, venue)
      .then((fresh) => {
        if (gone) return fresh.wire.close();
        open = fresh;
        fed = make(fresh.wire, venue);
        setSession(fresh);
        setModel(fed);
      })
      .catch((error: RequestError) => setFailure(error));
    return () => {
      gone = true;
      fed?.close();
      open?.wire.close();
    };
  }, [tenant, venue]);
  const state = session?.state.value;
  const stale = state?.kind === "lost" || state?.kind === "stopped";
  return { tenant, session, model, failure, setFailure, state, live: state?.kind === "live", stale };
}
export type Operator = ReturnType<typeof useOperator>;

/** The screen in place of the view, where there is no session or none that may see it; undefined where the view may be shown. */
export function blocked({ tenant, session, state, failure, setFailure }: Omit<Operator, "model">) {
  if (isDenied(state, failure)) {
    return (
      <main class="centre">
        <SignIn
          onBack={formatView({ screen: "start" })}
          onPassword={() => void startSignIn(tenant)}
          onToken={(token) => {
            session?.useToken(token);
            setFailure(undefined);
            session?.wire.renew();
          }}
        />
      </main>
    );
  }
  if (failure === undefined) return undefined;
  return (
    <main class="centre">
      <Notice alert title={s.states.failed} next={failure.message}>
        <button type="button" class="primary" onClick={() => location.reload()}>
          {s.retry}
        </button>
        <a class="button" href="#/">
          {s.back}
        </a>
      </Notice>
    </main>
  );
}

/** The bar at the top: the way back, the venue and how the connection is; what the screen adds. */
export function TopBar(props: { operator: Omit<Operator, "model">; back: string; backLabel: string; title: string; children: ComponentChildren }) {
  const { session, state } = props.operator;
  return (
    <>
      <header class="panel top">
        <a href={props.back} class="brand" aria-label={props.backLabel} title={props.backLabel}>
          ‹
        </a>
        <div class="venue">
          <b dir="auto">{props.title}</b>
          {state && session && <Connection state={state} lastHeard={session.wire.lastHeard} onRetry={() => session.wire.retry()} />}
        </div>
        {props.children}
      </header>
      {state?.kind === "stopped" && (
        <div class="banner" role="alert">
          <b>{s.states.stopped}</b> <span>{state.message}</span>
          <button type="button" onClick={() => session?.wire.retry()}>
            {s.retry}
          </button>
        </div>
      )}
    </>
  );
}

/** One button a level, the highest first; `inside`: people on each. */
export function Levels(props: {
  index: VenueIndex;
  level: number;
  inside?: number[] | undefined;
  show: (n: number) => string;
  onLevel: (level: number) => void;
}) {
  const { index, level, inside, show } = props;
  return (
    <div class="levels" role="radiogroup" aria-label={s.operator.levels}>
      {index.doc.levels
        .map((l, i) => ({ l, i }))
        .reverse()
        .map(({ l, i }) => (
          <button
            type="button"
            key={l.id}
            role="radio"
            aria-checked={i === level}
            aria-label={inside ? s.operator.level(l.name, show(inside[i] ?? 0)) : l.name}
            data-level={i}
            class={i === level ? "on" : ""}
            onClick={() => props.onLevel(i)}
          >
            <kbd>{i < 9 ? i + 1 : ""}</kbd>
            <span dir="auto">{l.name}</span>
            <b>{inside ? show(inside[i] ?? 0) : ""}</b>
          </button>
        ))}
    </div>
  );
}

/** A panel at the side with a name and a way to close it; `above`: what stands over the name. */
export function Side(props: {
  label: string;
  above?: ComponentChildren;
  note?: string | undefined;
  onClose?: () => void;
  children: ComponentChildren;
}) {
  return (
    <aside class="panel side" aria-label={props.label}>
      {props.above}
      <header>
        <div>
          <h2 dir="auto">{props.label}</h2>
          {props.note !== undefined && <p class="quiet">{props.note}</p>}
        </div>
        {props.onClose && (
          <button type="button" class="icon" aria-label={s.close} onClick={props.onClose}>
            ×
          </button>
        )}
      </header>
      {props.children}
    </aside>
  );
}

/** A failure in a line of its own. */
export function Fault({ message }: { message: string | undefined }) {
  if (message === undefined) return null;
  return (
    <p class="alert-line" role="alert">
      {message}
    </p>
  );
}

/** Run one act at a time; `fault` says why the last one failed. */
export function useAct() {
  const [busy, setBusy] = useState(false);
  const [fault, setFault] = useState<string>();
  const act = async (work: () => Promise<unknown>): Promise<boolean> => {
    if (busy) return false;
    setBusy(true);
    setFault(undefined);
    try {
      await work();
      return true;
    } catch (error) {
      setFault(error instanceof Error ? error.message : String(error));
      return false;
    } finally {
      setBusy(false);
    }
  };
  return { busy, fault, act };
}

/** Digits switch levels, Escape closes; not while somebody types. */
export function useKeys(levels: number, onLevel: (level: number) => void, onEscape: () => void): void {
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey) return;
      if (/^[1-9]$/.test(event.key) && Number(event.key) <= levels) onLevel(Number(event.key) - 1);
      else if (event.key === "Escape") onEscape();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [levels]);
}

export function isTyping(event: KeyboardEvent): boolean {
  const target = event.target as HTMLElement | null;
  return (
    target !== null &&
    /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) &&
    (target as HTMLInputElement).type !== "checkbox" &&
    (target as HTMLInputElement).type !== "radio"
  );
}
