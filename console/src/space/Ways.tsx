/** Directions: two places, who walks, and the way in words; what is closed can be opened and closed here, and the way follows. */
import { useEffect, useState } from "preact/hooks";
import type { NoRoute, RouteIs } from "../client/space_frames";
import type { RequestError, Wire } from "../client/wire";
import { count, duration } from "../format";
import type { MapScene } from "../map/scene";
import { Search } from "../operator/Search";
import { Fault, useAct } from "../operator/shell";
import { s } from "../strings";
import type { VenueIndex } from "../venue";
import type { SpaceModel } from "./model";
import { figuresOfClosed, figuresOfRoute, nameOfAccess, waysOf, whereOf } from "./shapes";

/** Others close things too, and no topic tells of it. */
const ACCESS_EVERY_MS = 5_000;
/** After an answer that did not come, or that the service was too busy to give. */
const AGAIN_MS = 2_000;
const PROFILES = ["walking", "wheelchair", "pram"] as const;

type Props = {
  index: VenueIndex;
  model: SpaceModel;
  wire: Wire;
  live: boolean;
  level: number;
  scene: MapScene | undefined;
  from: string | undefined;
  to: string | undefined;
  onEnds: (ends: { from?: string | undefined; to?: string | undefined }) => void;
  onLevel: (level: number) => void;
};

export function Ways({ index, model, wire, live, level, scene, from, to, onEnds, onLevel }: Props) {
  const [profile, setProfile] = useState<(typeof PROFILES)[number]>("walking");
  const [avoid, setAvoid] = useState({ stairs: false, escalators: false });
  const [answer, setAnswer] = useState<RouteIs | NoRoute>();
  const [failure, setFailure] = useState<string>();
  const { busy, fault, act } = useAct();
  const [start, goal] = [whereOf(from, index), whereOf(to, index)];
  const closed = model.closed.value;

  useEffect(() => {
    if (!live) return;
    const timer = setInterval(() => void model.readAccess(), ACCESS_EVERY_MS);
    return () => clearInterval(timer);
  }, [live, model]);
  useEffect(() => {
    if (!live || start === undefined || goal === undefined) {
      setAnswer(undefined);
      return;
    }
    let gone = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ask = () =>
      wire
        .request("route", { venue: index.doc.id, start: start.where, goal: goal.where, profile, ways: waysOf(avoid) })
        .then((found) => {
          if (gone) return;
          setAnswer(found);
          setFailure(undefined);
        })
        .catch((error: RequestError) => {
          if (gone) return;
          setAnswer(undefined);
          setFailure(error.message);
          if (error.retryable) timer = setTimeout(ask, AGAIN_MS);
        });
    void ask();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [live, from, to, profile, avoid, closed, index]);
  const route = answer?.op === "route_is" ? answer : undefined;
  useEffect(() => {
    scene?.setFigures("way", [...figuresOfClosed(closed, index), ...(route ? figuresOfRoute(route, level, index) : [])]);
    return () => scene?.setFigures("way", []);
  }, [scene, route, level, closed, index]);

  const rides = [...new Set(route?.legs.flatMap((leg) => (leg.type === "ride" ? [leg.connector] : [])))];
  const levels = [...new Set(route?.legs.flatMap((leg) => (leg.type === "walk" ? [leg.level] : [])))];
  const end = (which: "from" | "to", known: typeof start) => (
    <div class="end">
      <b>{s.ways[which]}</b>
      <Search
        name={which}
        index={index}
        label={s.ways[which]}
        value={known?.name ?? ""}
        accepts={(spot) => spot.kind === "unit"}
        onChoose={(spot) => onEnds({ [which]: spot.id })}
      />
      <button
        type="button"
        class="icon"
        aria-label={`${s.ways.clear}: ${s.ways[which]}`}
        disabled={known === undefined}
        onClick={() => onEnds({ [which]: undefined })}
      >
        ×
      </button>
    </div>
  );
  return (
    <>
      <div class="ends">
        {end("from", start)}
        {end("to", goal)}
      </div>
      {(from !== undefined && start === undefined) || (to !== undefined && goal === undefined) ? <Fault message={s.ways.unknown} /> : null}
      <fieldset class="choice" aria-label={s.ways.profile}>
        {PROFILES.map((one) => (
          <label key={one} class={one === profile ? "on" : ""}>
            <input type="radio" name="profile" checked={one === profile} onChange={() => setProfile(one)} />
            {s.ways.profiles[one]}
          </label>
        ))}
      </fieldset>
      <div class="inline avoid">
        <span class="quiet">{s.ways.avoid}</span>
        {(["stairs", "escalators"] as const).map((what) => (
          <label key={what}>
            <input
              type="checkbox"
              checked={avoid[what]}
              disabled={profile === "wheelchair"}
              onChange={(e) => setAvoid({ ...avoid, [what]: e.currentTarget.checked })}
            />{" "}
            {s.ways[what]}
          </label>
        ))}
      </div>
      {start === undefined || goal === undefined ? (
        <p class="quiet">{s.ways.hint}</p>
      ) : answer === undefined && failure === undefined ? (
        <p class="quiet">{s.ways.asking}</p>
      ) : null}
      <Fault message={failure} />
      {answer?.op === "no_route" && (
        <div class="no-way" role="status" data-no-way={answer.reason}>
          <b>{s.ways.none}</b>
          <p>{answer.message}</p>
        </div>
      )}
      {route && (
        <>
          <div class="clock" role="status">
            <b data-figure="way">{duration(route.seconds)}</b>
            <span>
              {count(route.metres)} m {s.ways.takes}
            </span>
          </div>
          {levels.length > 1 && (
            <div class="row">
              {levels.map((i) => (
                <button
                  type="button"
                  key={i}
                  aria-pressed={i === level}
                  aria-label={s.ways.onLevel(index.doc.levels[i]?.name ?? "")}
                  onClick={() => onLevel(i)}
                >
                  {index.doc.levels[i]?.short_name}
                </button>
              ))}
            </div>
          )}
          <ol class="words" aria-label={s.ways.words}>
            {route.words.map((sentence, i) => (
              <li key={i} dir="auto">
                {sentence}
              </li>
            ))}
          </ol>
          {rides.length > 0 && (
            <AccessList
              title={s.ways.connectors}
              ids={rides}
              index={index}
              verb={s.ways.close}
              busy={busy || !live}
              onAct={(id) => void act(() => model.setAccess(id, false))}
            />
          )}
        </>
      )}
      <Fault message={fault ?? model.failure.value.access?.message} />
      {closed.size > 0 && (
        <AccessList
          title={s.ways.closed}
          ids={[...closed]}
          index={index}
          verb={s.ways.open}
          busy={busy || !live}
          onAct={(id) => void act(() => model.setAccess(id, true))}
        />
      )}
    </>
  );
}

function AccessList(props: { title: string; ids: string[]; index: VenueIndex; verb: string; busy: boolean; onAct: (id: string) => void }) {
  return (
    <section>
      <h3>{props.title}</h3>
      <ul class="access">
        {props.ids.map((id) => {
          const name = nameOfAccess(id, props.index);
          return (
            <li key={id}>
              <span dir="auto">{name}</span>
              <button
                type="button"
                class="link"
                data-access={id}
                aria-label={`${props.verb}: ${name}`}
                disabled={props.busy}
                onClick={() => props.onAct(id)}
              >
                {props.verb}
              </button>
            </li>
          );
        })}
      </ul>
    </section>
  );
}
