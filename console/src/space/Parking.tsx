/** The car park: what the bays say, what the gates say, and by how much they disagree. */
import { useEffect, useState } from "preact/hooks";
import type { ParkingCompared } from "../client/space_frames";
import type { Wire } from "../client/wire";
import { count } from "../format";
import { Fault, useAct } from "../operator/shell";
import { s } from "../strings";

const EVERY_MS = 3_000;
const MAX_MOVING = 100_000;

export function Parking({ venue, wire, live }: { venue: string; wire: Wire; live: boolean }) {
  const [told, setTold] = useState<ParkingCompared>();
  const [failure, setFailure] = useState<string>();
  const [moving, setMoving] = useState(0);
  const { busy, fault, act } = useAct();
  useEffect(() => {
    if (!live) return;
    let gone = false;
    const ask = () =>
      wire
        .request("compare_parking", { venue, moving_at_most: moving })
        .then((answer) => {
          if (gone) return;
          setTold(answer);
          setFailure(undefined);
        })
        .catch((error: Error) => !gone && setFailure(error.message));
    void ask();
    const timer = setInterval(ask, EVERY_MS);
    return () => {
      gone = true;
      clearInterval(timer);
    };
  }, [live, venue, moving]);
  if (told === undefined) return <Fault message={failure} />;
  if (told.total === 0 && told.inside === 0) {
    return (
      <p class="quiet">
        {s.parking.none} {s.parking.noneNext}
      </p>
    );
  }
  return (
    <>
      <div class="clock">
        <b data-figure="taken">{count(told.taken)}</b>
        <span>{s.parking.taken}</span>
      </div>
      <dl class="figures">
        {(
          [
            [s.parking.inside, told.inside],
            [s.parking.free, told.total - told.taken],
            [s.parking.total, told.total],
          ] as const
        ).map(([name, n]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{count(n)}</dd>
          </div>
        ))}
      </dl>
      <p role="status" data-drift={told.drift} class={told.drift === 0 ? "good-line" : "alert-line"}>
        {told.drift === 0 ? s.parking.agrees : told.drift > 0 ? s.parking.more(count(told.drift)) : s.parking.fewer(count(-told.drift))}
      </p>
      <div class="form">
        <label>
          {s.parking.moving}
          <input
            type="number"
            min={0}
            max={MAX_MOVING}
            value={moving}
            onInput={(e) => setMoving(Math.min(MAX_MOVING, Math.max(0, Math.round(e.currentTarget.valueAsNumber) || 0)))}
          />
        </label>
      </div>
      <Fault message={fault ?? failure} />
      <button
        type="button"
        disabled={busy || !live || told.drift === 0}
        title={s.parking.recountHelp}
        onClick={() => void act(async () => setTold(await wire.request("recount", { venue, moving })))}
      >
        {s.parking.recount}
      </button>
    </>
  );
}
