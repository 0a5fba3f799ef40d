/** A level's anchors as a list, and one of them: its document, and what the pose graph says of it. */
import { useState } from "preact/hooks";
import type { Held } from "../client/ar_frames";
import { RequestError } from "../client/wire";
import { count, decimals, percent } from "../format";
import { s } from "../strings";
import { NAME } from "../url";
import { type Graph, hexOf } from "./model";
import { type Judged, rotated } from "./pose";

const LISTED = 100;

/** A payload as text where it is one, else undefined. */
export function textOf(payload: Uint8Array): string | undefined {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(payload);
    return [...text].some((c) => c < " ") ? undefined : text;
  } catch {
    return undefined;
  }
}

const short = (id: string) => id.slice(0, 8);
const place = (p: readonly number[]) => p.map((v) => decimals(v, 2)).join(", ");

export function AnchorList(props: { anchors: readonly Held[]; loading: boolean; whole: boolean; onChoose: (id: string) => void }) {
  const [text, setText] = useState("");
  const wanted = text.trim().toLowerCase();
  const rows = props.anchors
    .map((held) => ({ held, id: hexOf(held.anchor.id), label: held.anchor.tags.join(", ") || (textOf(held.anchor.payload) ?? "") }))
    .filter(
      (row) =>
        wanted === "" ||
        row.id.startsWith(wanted) ||
        row.label.toLowerCase().includes(wanted) ||
        (textOf(row.held.anchor.payload) ?? "").toLowerCase().includes(wanted),
    );
  return (
    <>
      <h2>{s.ar.anchors}</h2>
      {props.loading && props.anchors.length === 0 && <p class="quiet loading">{s.ar.reading}</p>}
      {!props.loading && props.anchors.length === 0 && (
        <p class="quiet">
          {s.ar.none} {s.ar.noneNext}
        </p>
      )}
      {!props.whole && <p class="quiet">{s.ar.part}</p>}
      {props.anchors.length > 0 && (
        <input aria-label={s.ar.find} placeholder={s.ar.find} value={text} onInput={(e) => setText(e.currentTarget.value)} />
      )}
      <ul class="rows">
        {rows.slice(0, LISTED).map(({ held, id, label }) => (
          <li key={id}>
            <button type="button" data-anchor={id} onClick={() => props.onChoose(id)}>
              <span dir="auto">{label || short(id)}</span>
              <b>{percent(held.quality)}</b>
              <small>
                {place(held.anchor.position_m)} m{held.anchor.carrier && ` · ${held.anchor.carrier}`}
              </small>
              {held.disputed > 0 && <small class="warn">{`${s.ar.figure.disputed} ${count(held.disputed)}`}</small>}
            </button>
          </li>
        ))}
      </ul>
      {rows.length > LISTED && <p class="quiet">{s.ar.more(count(rows.length - LISTED))}</p>}
    </>
  );
}

type Props = {
  id: string;
  held: Held | undefined;
  loading: boolean;
  graph: Graph | RequestError | undefined;
  judged: readonly Judged[];
  live: boolean;
  timezone: string | undefined;
  onRead: () => void;
  onChoose: (id: string) => void;
  onScene: (name: string) => void;
};

export function AnchorPanel({ id, held, loading, graph, judged, live, timezone, onRead, onChoose, onScene }: Props) {
  if (held === undefined) return <p class="quiet">{loading ? s.ar.reading : s.ar.gone}</p>;
  const { anchor } = held;
  const [ax, ay] = rotated(anchor.rotation, [1, 0, 0]);
  const payload = textOf(anchor.payload);
  const spread =
    anchor.covariance.length === 21 ? Math.sqrt(Math.max(anchor.covariance[0]!, anchor.covariance[6]!, anchor.covariance[11]!)) : undefined;
  const fields: [string, string][] = [
    [s.ar.field.id, id],
    [s.ar.field.position, `${place(anchor.position_m)} m`],
    [s.ar.field.heading, `${decimals((Math.atan2(ay, ax) * 180) / Math.PI, 0)}°`],
    ...(spread === undefined ? [] : [[s.ar.field.spread, `${decimals(spread, 3)} m`] as [string, string]]),
    [s.ar.field.owner, String(held.owner)],
    [s.ar.field.version, String(held.version)],
    ...(anchor.tags.length > 0 ? [[s.ar.field.tags, anchor.tags.join(", ")] as [string, string]] : []),
    [s.ar.field.access, s.ar.access[anchor.access] ?? anchor.access],
    [s.ar.field.expires, anchor.expires_ms === 0 ? s.ar.never : new Date(anchor.expires_ms).toLocaleString(undefined, { timeZone: timezone })],
    ...(anchor.carrier ? [[s.ar.field.carrier, anchor.carrier] as [string, string]] : []),
    ...(anchor.fragment.length > 0 ? [[s.ar.field.fragment, `${hexOf(anchor.fragment).slice(0, 16)}…`] as [string, string]] : []),
    ...(anchor.payload.length > 0 ? [[s.ar.field.payload, payload ?? s.ar.bytes(count(anchor.payload.length))] as [string, string]] : []),
  ];
  return (
    <>
      <dl class="figures">
        <div>
          <dt>{s.ar.figure.quality}</dt>
          <dd data-figure="quality">{percent(held.quality)}</dd>
        </div>
        <div>
          <dt>{s.ar.figure.agreed}</dt>
          <dd>{count(held.agreed)}</dd>
        </div>
        <div>
          <dt>{s.ar.figure.disputed}</dt>
          <dd>{count(held.disputed)}</dd>
        </div>
      </dl>
      <dl class="document">
        {fields.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd dir="auto">{value}</dd>
          </div>
        ))}
      </dl>
      {payload !== undefined && NAME.test(payload) && (
        <div class="row">
          <button type="button" onClick={() => onScene(payload)}>
            {s.ar.openScene(payload)}
          </button>
        </div>
      )}
      <h3>{s.ar.graph}</h3>
      {graph instanceof RequestError ? (
        <p class={graph.code === "forbidden" ? "quiet" : "alert-line"} role="status">
          {graph.code === "forbidden" ? s.ar.graphMissing : graph.message}
        </p>
      ) : (
        graph !== undefined && judged.length === 0 && <p class="quiet">{s.ar.graphNone}</p>
      )}
      <ul class="rows">
        {judged.map((one, i) => {
          const from = one.from && hexOf(one.from.anchor.id);
          const other = from === undefined ? undefined : from === id ? hexOf(one.of.anchor.id) : from;
          const label = other === undefined ? s.ar.seenInVenue : from === id ? s.ar.fromHere(short(other)) : s.ar.seenFrom(short(other));
          return (
            <li key={i}>
              <button
                type="button"
                data-seen={one.agrees ? "agrees" : "disputes"}
                disabled={other === undefined}
                onClick={() => other && onChoose(other)}
              >
                <span>{label}</span>
                <b class={one.agrees ? "good" : "alert"}>{one.agrees ? s.ar.agrees : s.ar.disputes}</b>
                <small>{s.ar.graphOff(decimals(one.metres, 2), decimals((one.radians * 180) / Math.PI, 1))}</small>
              </button>
            </li>
          );
        })}
      </ul>
      <div class="row">
        <button type="button" class="link" disabled={!live} onClick={onRead}>
          {s.ar.graphRead}
        </button>
      </div>
    </>
  );
}
