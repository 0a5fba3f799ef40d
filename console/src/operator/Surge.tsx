/** Replay a surge: the library's scenarios, the one that plays with a picture of its progress, and the reports of those that ended. */
import { useEffect, useState } from "preact/hooks";
import { Spark } from "../charts/Spark";
import { count, duration, percent } from "../format";
import { beginRehearsal, type Rehearsal, rehearsal, rehearsalReport, rehearsals, type ScenarioLine, scenarios, stopRehearsal } from "../rehearsals";
import { s } from "../strings";
import { DEFAULT_LAYERS, formatView } from "../url";
import { Fault, useAct } from "./shell";

const EVERY_MS = 1_000;
const IDLE_MS = 5_000;

export function Surge({ tenant, venue, kind, live }: { tenant: string; venue: string; kind: string; live: boolean }) {
  const [library, setLibrary] = useState<ScenarioLine[]>();
  const [runs, setRuns] = useState<Rehearsal[]>([]);
  const [now, setNow] = useState<Rehearsal>();
  const [here, setHere] = useState(true);
  const [failure, setFailure] = useState<string>();
  const { busy, fault, act } = useAct();
  useEffect(() => {
    if (!live) return; // before the first welcome there may be no token
    let gone = false;
    scenarios(tenant)
      .then((found) => !gone && setLibrary(found))
      .catch((error: Error) => !gone && setFailure(error.message));
    return () => {
      gone = true;
    };
  }, [tenant, live]);
  useEffect(() => {
    if (!live) return;
    let gone = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ask = async () => {
      let playing: Rehearsal | undefined;
      try {
        const list = await rehearsals(tenant);
        const under = list.find((run) => run.state === "running");
        playing = under && (await rehearsal(tenant, under.run));
        if (gone) return;
        setRuns(list.filter((run) => run.state !== "running"));
        setNow(playing);
        setFailure(undefined);
      } catch (error) {
        if (gone) return;
        setFailure(error instanceof Error ? error.message : String(error));
      }
      timer = setTimeout(ask, playing ? EVERY_MS : IDLE_MS);
    };
    void ask();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [tenant, live, busy]);
  const save = (run: string) =>
    act(async () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(await rehearsalReport(tenant, run));
      link.download = `${run}.html`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    });
  return (
    <>
      {now ? (
        <Playing run={now} busy={busy} onStop={() => void act(() => stopRehearsal(tenant, now.run))} />
      ) : (
        <>
          <p class="quiet">{s.surge.lead}</p>
          <label class="inline check">
            <input type="checkbox" checked={here} onChange={(e) => setHere(e.currentTarget.checked)} /> {s.surge.here(kind)}
          </label>
          <ul class="rows">
            {(library ?? []).map((one) => (
              <li key={one.name} class="scenario">
                <span dir="auto">{one.title}</span>
                <button
                  type="button"
                  data-scenario={one.name}
                  disabled={busy || (!here && one.venue === "")}
                  onClick={() => void act(() => beginRehearsal(tenant, one.name, here ? venue : undefined))}
                >
                  {s.surge.replay}
                </button>
              </li>
            ))}
          </ul>
        </>
      )}
      <Fault message={fault ?? failure} />
      {runs.length > 0 && (
        <section>
          <h3>{s.surge.before}</h3>
          <ul class="rows">
            {runs.map((run) => (
              <li key={run.run} class="scenario" data-run={run.run}>
                <span dir="auto">
                  {run.title}
                  <small class={run.state === "held" ? "good" : run.state === "stopped" ? "" : "alert"}>
                    {" "}
                    {s.surge.state[run.state] ?? run.state}
                  </small>
                </span>
                {(run.state === "held" || run.state === "missed") && (
                  <button type="button" class="link" disabled={busy} onClick={() => void save(run.run)}>
                    {s.surge.report}
                  </button>
                )}
                {run.state !== "held" && <small class="wide">{run.said}</small>}
              </li>
            ))}
          </ul>
        </section>
      )}
    </>
  );
}

function Playing({ run, busy, onStop }: { run: Rehearsal; busy: boolean; onStop: () => void }) {
  const series = (of: "people" | "pushes") => ({ t: run.picture.map((p) => p.tick / 10), v: run.picture.map((p) => p[of]) });
  return (
    <section class="playing" aria-live="polite">
      <h3 dir="auto">{run.title}</h3>
      <div class="clock">
        <b data-figure="share">{percent(run.share)}</b>
        <span>
          {s.surge.phase[run.phase] ?? run.phase} {run.doing !== "" && `· ${run.doing}`}
        </span>
      </div>
      <progress max={1} value={run.share} aria-label={run.title} />
      <Spark label={s.surge.people} unit="" series={series("people")} show={count} />
      <dl class="figures">
        <div>
          <dt>{s.operator.pushes}</dt>
          <dd>{count(run.pushes)}</dd>
        </div>
        <div>
          <dt>{s.operator.payments}</dt>
          <dd>{count(run.payments)}</dd>
        </div>
        <div>
          <dt>{s.surge.left}</dt>
          <dd>{run.ticks > run.tick ? duration((run.ticks - run.tick) / 10) : "–"}</dd>
        </div>
      </dl>
      <div class="row">
        <a
          class="button"
          href={formatView({ screen: "operator", tenant: run.run, venue: run.venue, layers: DEFAULT_LAYERS })}
          target="_blank"
          rel="noreferrer"
        >
          {s.surge.watch}
        </a>
        <button type="button" disabled={busy} onClick={onStop}>
          {s.surge.stop}
        </button>
      </div>
    </section>
  );
}
