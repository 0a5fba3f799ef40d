/** Offers and flash sales along the venue's clock: bars from start to end, a diamond where a flash sale starts, a line at now. */
import type { Offer } from "../client/frames";
import { TICK_S } from "../client/frames";
import { venueTime } from "../format";
import { phaseOf } from "../operator/model";
import { s } from "../strings";

type Listed = Offer & { ended: boolean };
const LANES = 3;

/** The window shown: ten minutes of venue time, seven past and three ahead, not before tick 0. */
export function windowOf(tick: number): [number, number] {
  const span = 600 / TICK_S;
  const from = Math.max(0, tick - 0.7 * span);
  return [from, from + span];
}

/** First lane where the bar touches no other; undefined where all are taken: it is not drawn then. */
export function laneFor(taken: [number, number][][], start: number, end: number): number | undefined {
  for (let lane = 0; lane < LANES; lane++) {
    const bars = (taken[lane] ??= []);
    if (bars.every(([s, e]) => end <= s || start >= e)) {
      bars.push([start, end]);
      return lane;
    }
  }
  return undefined;
}

export function Timeline({ offers, tick, onSelect }: { offers: readonly Listed[]; tick: number; onSelect: (offer: Offer) => void }) {
  const [from, to] = windowOf(tick);
  const x = (t: number) => `${(100 * (Math.min(to, Math.max(from, t)) - from)) / (to - from)}%`;
  const seen = offers.filter((o) => o.starts_tick <= to && o.ends_tick >= from);
  const taken: [number, number][][] = [];
  // Flash sales have the first choice of lane, then the newest offers.
  const marks = seen
    .sort((a, b) => Number(b.flash) - Number(a.flash) || b.starts_tick - a.starts_tick)
    .map((offer) => ({ offer, lane: laneFor(taken, offer.starts_tick, Math.min(offer.ends_tick, to)) }))
    .filter((m) => m.lane !== undefined);
  const step = 1200; // two minutes
  const ticks: number[] = [];
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) ticks.push(t);
  return (
    <div class="timeline" role="group" aria-label={s.operator.timeline}>
      <div class="timeline-axis" aria-hidden="true">
        {ticks.map((t) => (
          <span key={t} style={{ insetInlineStart: x(t) }}>
            {venueTime(t)}
          </span>
        ))}
      </div>
      <div class="timeline-lanes">
        {seen.length === 0 && <p class="quiet">{s.operator.timelineEmpty}</p>}
        {marks.map(({ offer, lane }) => (
          <button
            type="button"
            key={offer.id}
            class={`timeline-bar ${offer.flash ? "flash" : ""} ${phaseOf(offer, tick)}`}
            style={{ insetInlineStart: x(offer.starts_tick), width: `calc(${x(offer.ends_tick)} - ${x(offer.starts_tick)})`, top: `${lane! * 15}px` }}
            title={`${offer.title} · ${venueTime(offer.starts_tick)}`}
            onClick={() => onSelect(offer)}
          >
            <span>
              {offer.flash ? "◆ " : ""}
              {offer.title}
            </span>
          </button>
        ))}
        <i class="timeline-now" style={{ insetInlineStart: x(tick) }} aria-hidden="true" />
      </div>
    </div>
  );
}
