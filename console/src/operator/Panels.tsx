/** The operator's rail (levels, layers, legend) and the run's counters. */
import type { ComponentChildren } from "preact";
import { count, decimals, money, venueTime } from "../format";
import { BAND_NAMES, BANDS, rampPosition } from "../map/field";
import { RAMPS, rampColour } from "../map/ramp";
import { s } from "../strings";
import { theme } from "../ui/theme";
import { LAYERS, type Layer } from "../url";
import type { Spot, VenueIndex } from "../venue";
import type { OperatorModel } from "./model";
import { Levels, Side } from "./shell";

const middle = [0.15, 0.37, 0.57, 0.9, 1.6, 3];

export function Legend({ field, inView }: { field: number; inView: number }) {
  const ramp = RAMPS[theme.value];
  return (
    <div class="legend">
      <h2>{s.operator.legend}</h2>
      <div class="legend-bands" role="img" aria-label={BAND_NAMES.map((n, i) => `${n} ${i < BANDS.length ? `to ${BANDS[i]}` : "above"}`).join(", ")}>
        {BAND_NAMES.map((name, i) => {
          const [r, g, b] = rampColour(ramp, rampPosition(middle[i]!));
          return (
            <span key={name}>
              <i style={{ background: `rgb(${r} ${g} ${b})` }} />
              <b>{name}</b>
              <small>{i < BANDS.length ? two.format(BANDS[i]!) : ""}</small>
            </span>
          );
        })}
      </div>
      <p class="quiet">{field > 0.5 ? s.operator.legendField(count(inView)) : s.operator.legendPoints}</p>
    </div>
  );
}
const two = new Intl.NumberFormat(undefined, { maximumFractionDigits: 2 });

type RailProps = {
  index: VenueIndex;
  model: OperatorModel;
  level: number;
  layers: readonly Layer[];
  field: number;
  inView: number;
  heat: { most: number; since?: number | undefined } | undefined;
  onLevel: (level: number) => void;
  onLayers: (layers: Layer[]) => void;
};

export function Rail({ index, model, level, layers, field, inView, heat, onLevel, onLayers }: RailProps) {
  const inside = model.stats.value?.inside;
  return (
    <nav class="panel rail" aria-label={s.operator.levels}>
      <div class="total">
        <b data-figure="inside">{inside ? count(model.inside.value) : "–"}</b>
        <span>{s.operator.inside}</span>
      </div>
      <Levels index={index} level={level} inside={inside} show={count} onLevel={onLevel} />
      <fieldset class="layers">
        <legend>{s.operator.layers}</legend>
        {LAYERS.map((layer) => (
          <label key={layer}>
            <span>{s.operator.layer[layer]}</span>
            <input
              type="checkbox"
              role="switch"
              checked={layers.includes(layer)}
              onChange={(event) => onLayers(LAYERS.filter((l) => (l === layer ? event.currentTarget.checked : layers.includes(l))))}
            />
          </label>
        ))}
      </fieldset>
      <Legend field={field} inView={inView} />
      {heat && (
        <p class="quiet" data-figure="heat">
          {heat.most > 0 ? s.operator.heat(decimals(heat.most, 1), venueTime(heat.since ?? 0)) : s.operator.heatNone}
        </p>
      )}
    </nav>
  );
}

type RunProps = { model: OperatorModel; index: VenueIndex; above: ComponentChildren; onSelect: (spot: Spot) => void };

export function RunPanel({ model, index, above, onSelect }: RunProps) {
  const stats = model.stats.value;
  const payments = model.payments.value;
  const zones = Object.entries(stats?.zones ?? {})
    .map(([id, n]) => ({ spot: index.byId.get(id), n }))
    .filter((z): z is { spot: Spot; n: number } => z.spot !== undefined && z.spot.name !== "" && z.n > 0)
    .sort((a, b) => b.n - a.n)
    .slice(0, 10);
  const most = zones[0]?.n ?? 1;
  const late = model.lateRows.value;
  return (
    <Side label={s.operator.run} above={above}>
      <div class="clock">
        <b data-figure="clock">{venueTime(model.tick.value)}</b>
        <span>
          {s.operator.clock} · {s.operator.tick(count(model.tick.value))} · {model.driven.value ? s.operator.driven : s.operator.free}
        </span>
      </div>
      {stats === undefined && payments === undefined && <p class="quiet">{s.operator.noStats}</p>}
      <dl class="figures">
        {(
          [
            [s.operator.pushes, stats?.pushes],
            [s.operator.entries, stats?.entries],
            [s.operator.exits, stats?.exits],
            [s.operator.dwells, stats?.dwells],
            [s.operator.payments, payments?.payments],
            [s.operator.refused, payments?.refused],
          ] as const
        ).map(([name, n]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{n === undefined ? "–" : count(n)}</dd>
          </div>
        ))}
        {Object.entries(payments?.volume ?? {}).map(([currency, volume]) => (
          <div key={currency} class="wide">
            <dt>{s.operator.volume}</dt>
            <dd>{money(volume, currency)}</dd>
          </div>
        ))}
      </dl>
      {late > 0 && (
        <p class="alert-line" role="alert">
          <b>
            {s.operator.late}: {count(late)}
          </b>{" "}
          {s.operator.lateNext}
        </p>
      )}
      <h3>{s.operator.fullest}</h3>
      {zones.length === 0 ? (
        <p class="quiet">{s.operator.noFullest}</p>
      ) : (
        <ol class="bars">
          {zones.map(({ spot, n }) => (
            <li key={spot.id}>
              <button type="button" onClick={() => onSelect(spot)}>
                <span dir="auto">{spot.name}</span>
                <small>{index.doc.levels[spot.level]?.short_name}</small>
                <b>{count(n)}</b>
                <i style={{ width: `${(100 * n) / most}%` }} aria-hidden="true" />
              </button>
            </li>
          ))}
        </ol>
      )}
    </Side>
  );
}
