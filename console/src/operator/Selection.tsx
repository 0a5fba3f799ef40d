/** What is selected: a shop or zone, its occupancy, its offers, and the form that really creates one. */
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { type Audience, type Offer, TICK_S, type ZoneState } from "../client/frames";
import { newId } from "../client/session";
import type { Measures } from "../client/space_frames";
import { RequestError, type Wire } from "../client/wire";
import { count, decimals, duration, venueTime } from "../format";
import { s } from "../strings";
import type { Spot, VenueIndex } from "../venue";
import { type OperatorModel, phaseOf } from "./model";
import { Side } from "./shell";

/** Ticks between pressing the button and the start, so that the command is durable before it. */
export const LEAD_TICKS = 20;

export type Draft = { title: string; text: string; audience: Audience; minutes: number; flash: boolean };

/** The offer that a draft means at a tick of the venue's clock. */
export function offerOf(draft: Draft, unitId: string, tick: number, id: string): Offer {
  const starts = tick + LEAD_TICKS;
  return {
    id,
    unit_id: unitId,
    title: draft.title.trim(),
    text: draft.text.trim(),
    audience: draft.audience,
    starts_tick: starts,
    ends_tick: starts + Math.max(1, Math.round((draft.minutes * 60) / TICK_S)),
    cooldown_ticks: 6000,
    cap: 1,
    flash: draft.flash,
  };
}

type Props = {
  spot: Spot;
  index: VenueIndex;
  model: OperatorModel;
  wire: Wire;
  live: boolean;
  above: ComponentChildren;
  onClose: () => void;
  onTool: (tool: "ways" | "edits") => void;
};

export function Selection(props: Props) {
  const { spot, index, model, wire, live } = props;
  const [zone, setZone] = useState<ZoneState>();
  const [measured, setMeasured] = useState<Measures>();
  const [failure, setFailure] = useState<string>();
  const [said, setSaid] = useState<string>();
  const [open, setOpen] = useState(false);
  useEffect(() => {
    setZone(undefined);
    setMeasured(undefined);
    setFailure(undefined);
    setSaid(undefined);
    setOpen(false);
  }, [spot.id]);
  useEffect(() => {
    if (!live) return;
    let gone = false;
    const about = { venue: index.doc.id, zone: spot.id };
    const ask = () =>
      Promise.all([wire.request("get_zone", about), wire.request("measure", about)])
        .then(([state, measures]) => {
          if (gone) return;
          setZone(state);
          setMeasured(measures);
          setFailure(undefined);
        })
        .catch((error: RequestError) => !gone && setFailure(error.message));
    void ask();
    const timer = setInterval(ask, 1000);
    return () => {
      gone = true;
      clearInterval(timer);
    };
  }, [spot.id, live]);

  const send = async (draft: Draft) => {
    setFailure(undefined);
    try {
      const { tick } = await wire.request("get_clock", { venue: index.doc.id });
      const offer = offerOf(draft, spot.id, tick, `console-${newId().slice(0, 12)}`);
      await wire.request("create_offer", { venue: index.doc.id, offer });
      setSaid(s.operator.form.sent(offer.title));
      setOpen(false);
    } catch (error) {
      setFailure(error instanceof RequestError ? error.message : String(error));
    }
  };
  const end = (offer: Offer) =>
    wire
      .request("end_offer", { venue: index.doc.id, offer: offer.id, tick: model.tick.value + 1 })
      .catch((error: RequestError) => setFailure(error.message));

  const offers = [...model.offers.value.values()].filter((o) => o.unit_id === spot.id).sort((a, b) => b.starts_tick - a.starts_tick);
  return (
    <Side
      label={spot.name}
      above={props.above}
      note={`${spot.category} · ${index.doc.levels[spot.level]?.name} · ${count(spot.areaM2)} m²`}
      onClose={props.onClose}
    >
      <div class="clock">
        <b data-figure="occupancy">{zone ? count(zone.inside) : "–"}</b>
        <span>{s.operator.insideNow}</span>
      </div>
      <dl class="figures">
        <div>
          <dt>{s.operator.entries}</dt>
          <dd>{zone ? count(zone.entries) : "–"}</dd>
        </div>
        <div>
          <dt>{s.operator.dwells}</dt>
          <dd>{zone ? count(zone.dwells) : "–"}</dd>
        </div>
        <div>
          <dt>{s.operator.stay}</dt>
          <dd>{zone && zone.exits > 0 ? duration(zone.stayed_s / zone.exits) : "–"}</dd>
        </div>
        <div>
          <dt>{s.operator.density}</dt>
          <dd data-figure="density">{measured ? s.operator.perM2(decimals(measured.density_per_m2, 2)) : "–"}</dd>
        </div>
        <div class="two">
          <dt>{s.operator.service}</dt>
          <dd>{measured ? s.operator.band(measured.service, measured.waiting) : "–"}</dd>
        </div>
      </dl>
      {spot.kind === "unit" && (
        <div class="row">
          <button type="button" onClick={() => props.onTool("ways")}>
            {s.operator.wayHere}
          </button>
          <button type="button" onClick={() => props.onTool("edits")}>
            {s.operator.editHere}
          </button>
        </div>
      )}
      {spot.kind === "unit" && (
        <>
          <h3>{s.operator.offers}</h3>
          {offers.length === 0 && <p class="quiet">{s.operator.noOffers}</p>}
          <ul class="offers">
            {offers.slice(0, 6).map((offer) => {
              const phase = phaseOf(offer, model.tick.value);
              return (
                <li key={offer.id} class={phase}>
                  <b dir="auto">
                    {offer.flash && "◆ "}
                    {offer.title}
                  </b>
                  <span class={`tag ${phase}`}>{s.operator.state[phase]}</span>
                  <small>
                    {offer.audience.type === "within"
                      ? s.operator.audience.within(count(offer.audience.radius_m))
                      : s.operator.audience[offer.audience.type]}{" "}
                    · {venueTime(offer.starts_tick)}
                  </small>
                  {phase !== "ended" && (
                    <button type="button" class="link" onClick={() => end(offer)}>
                      {s.operator.endOffer}
                    </button>
                  )}
                </li>
              );
            })}
          </ul>
          {failure && (
            <p class="alert-line" role="alert">
              {failure}
            </p>
          )}
          {said && (
            <p class="good-line" role="status">
              {said}
            </p>
          )}
          {open ? (
            <OfferForm spot={spot} onSend={send} onCancel={() => setOpen(false)} />
          ) : (
            <div class="row">
              <button type="button" class="primary" disabled={!live} onClick={() => setOpen(true)}>
                {s.operator.create}
              </button>
              <button
                type="button"
                class="offer-button"
                disabled={!live}
                title={s.operator.flashHelp}
                onClick={() =>
                  send({
                    title: s.operator.form.flashTitle(spot.name),
                    text: s.operator.form.defaultText,
                    audience: { type: "inside" },
                    minutes: 10,
                    flash: true,
                  })
                }
              >
                ◆ {s.operator.flash}
              </button>
            </div>
          )}
        </>
      )}
      {spot.kind === "zone" && failure && (
        <p class="alert-line" role="alert">
          {failure}
        </p>
      )}
    </Side>
  );
}

function OfferForm({ spot, onSend, onCancel }: { spot: Spot; onSend: (draft: Draft) => Promise<void>; onCancel: () => void }) {
  const f = s.operator.form;
  const [title, setTitle] = useState<string>(f.defaultTitle(spot.name));
  const [text, setText] = useState<string>(f.defaultText);
  const [near, setNear] = useState(false);
  const [radius, setRadius] = useState(20);
  const [minutes, setMinutes] = useState(30);
  const [busy, setBusy] = useState(false);
  return (
    <form
      class="form"
      onSubmit={(event) => {
        event.preventDefault();
        setBusy(true);
        void onSend({ title, text, audience: near ? { type: "within", radius_m: radius } : { type: "inside" }, minutes, flash: !near }).finally(() =>
          setBusy(false),
        );
      }}
    >
      <label>
        {f.title}
        <input required maxLength={120} dir="auto" value={title} onInput={(e) => setTitle(e.currentTarget.value)} />
      </label>
      <label>
        {f.text}
        <textarea maxLength={500} rows={2} dir="auto" value={text} onInput={(e) => setText(e.currentTarget.value)} />
      </label>
      <fieldset>
        <legend>{f.audience}</legend>
        <label class="inline">
          <input type="radio" name="audience" checked={!near} onChange={() => setNear(false)} /> {f.inside}
        </label>
        <label class="inline">
          <input type="radio" name="audience" checked={near} onChange={() => setNear(true)} /> {f.within}
          <input
            type="number"
            aria-label={f.within}
            min={1}
            max={1000}
            value={radius}
            disabled={!near}
            onInput={(e) => setRadius(e.currentTarget.valueAsNumber || 20)}
          />{" "}
          {f.metres}
        </label>
      </fieldset>
      <label class="inline">
        {f.minutes}
        <input type="number" min={1} max={1440} value={minutes} onInput={(e) => setMinutes(e.currentTarget.valueAsNumber || 30)} /> {f.minutesUnit}
      </label>
      <div class="row">
        <button type="submit" class="primary" disabled={busy || !title.trim()}>
          {f.send}
        </button>
        <button type="button" onClick={onCancel}>
          {s.cancel}
        </button>
      </div>
    </form>
  );
}
