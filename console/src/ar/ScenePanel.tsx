/** A scene as a tree, one of its nodes with what lost there, and the cameras that look at it. */
import { useState } from "preact/hooks";
import { count, decimals, percent } from "../format";
import { s } from "../strings";
import type { VenueIndex } from "../venue";
import { type ArModel, asRequestError, type Eye, hexOf, nameOf, type SceneNode, type SceneState } from "./model";
import { readPly } from "./ply";
import type { Lost, SceneReplica } from "./scene";
import { type Dot, ROOT, TRASH } from "./scene_ops";

const LISTED = 300;
const MAX_TEXT = 200;
/** Larger files are no single view of a camera, and would stop the page. */
const MAX_FILE_BYTES = 64 * 1024 * 1024;

/** A property's value as text: JSON, bytes as hexadecimal. */
export function valueText(value: unknown): string {
  const text = JSON.stringify(value, (_, v: unknown) => (v instanceof Uint8Array ? `0x${hexOf(v)}` : typeof v === "bigint" ? v.toString() : v)) ?? "";
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text;
}

export function lostText(lost: Lost, scene: SceneReplica): string {
  if (lost.what === "deleted") return s.ar.lostDeleted(lost.client, valueText(lost.value));
  if (lost.what !== "move") return s.ar.lost(lost.client, lost.what, valueText(lost.value));
  const parent = lost.value as Dot;
  return s.ar.lostMove(lost.client, parent === ROOT ? s.ar.theRoot : parent === TRASH ? s.ar.theTrash : nameOf(scene, parent));
}

export function SceneTree(props: { scene: SceneState; chosen: string | undefined; onChoose: (node: Dot) => void; onClose: () => void }) {
  const { scene } = props;
  const hidden = scene.lost.filter((one) => !scene.replica.has(one.node));
  return (
    <>
      <header>
        <div>
          <h2 dir="auto">{`${s.ar.scene} ${scene.name}`}</h2>
          <p class="quiet" data-figure="nodes">
            {scene.loading ? s.ar.sceneReading : s.ar.nodes(count(scene.nodes.length))}
            {scene.lost.length > 0 && ` · ${s.ar.conflicts(count(scene.lost.length))}`}
          </p>
        </div>
        <button type="button" class="icon" aria-label={s.ar.sceneClose} onClick={props.onClose}>
          ×
        </button>
      </header>
      {scene.failure && (
        <p class="alert-line" role="alert">
          {scene.failure.message}
        </p>
      )}
      {!scene.loading && !scene.failure && scene.nodes.length === 0 && <p class="quiet">{s.ar.sceneEmpty}</p>}
      <ul class="rows tree">
        {scene.nodes.slice(0, LISTED).map((row) => (
          <li key={row.node} style={{ paddingInlineStart: `${Math.min(row.depth, 12) * 12}px` }}>
            <button type="button" class={row.node === props.chosen ? "on" : ""} data-node={row.name} onClick={() => props.onChoose(row.node)}>
              <span dir="auto">{row.name}</span>
              {row.lost.length > 0 && <b class="warn">{s.ar.conflict}</b>}
            </button>
          </li>
        ))}
      </ul>
      {scene.nodes.length > LISTED && <p class="quiet">{s.ar.nodesMore(count(scene.nodes.length - LISTED))}</p>}
      {hidden.slice(0, 20).map((one, i) => (
        <p class="quiet warn" key={i}>
          {nameOf(scene.replica, one.node)}: {lostText(one, scene.replica)}
        </p>
      ))}
      {scene.nodes.length > 0 && <p class="quiet">{s.ar.boxes}</p>}
    </>
  );
}

export function NodePanel({ row, scene, failure }: { row: SceneNode; scene: SceneState; failure: string | undefined }) {
  const properties = scene.replica.properties(row.node);
  return (
    <>
      <p class="quiet">{row.placed ? `${row.at.map((v) => decimals(v, 2)).join(", ")} m` : s.ar.unplaced}</p>
      {failure !== undefined && <p class="alert-line">{s.ar.meshFailed(failure)}</p>}
      {row.lost.length > 0 && (
        <ul class="conflicts" aria-label={s.ar.conflicts(count(row.lost.length))}>
          {row.lost.map((one, i) => (
            <li key={i} data-lost={one.what}>
              {lostText(one, scene.replica)}
            </li>
          ))}
        </ul>
      )}
      <h3>{s.ar.properties}</h3>
      {properties.length === 0 && <p class="quiet">{s.ar.noProperties}</p>}
      <dl class="document">
        {properties.map(([key, value]) => (
          <div key={key} class={row.lost.some((one) => one.what === key) ? "contested" : ""}>
            <dt>{key}</dt>
            <dd dir="auto" data-property={key}>
              {valueText(value)}
            </dd>
          </div>
        ))}
      </dl>
    </>
  );
}

export function CameraPanel(props: { model: ArModel; eyes: readonly Eye[]; index: VenueIndex; live: boolean; onChoose: (eye: Eye) => void }) {
  const { model, eyes, index } = props;
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<string>();
  const placed = model.placed.value;
  const ask = async (file: File) => {
    setBusy(true);
    setFailure(undefined);
    try {
      if (file.size > MAX_FILE_BYTES) throw new RangeError(`${file.name}: ${count(file.size)} bytes; at most ${count(MAX_FILE_BYTES)}`);
      await model.localise(file.name, readPly(await file.arrayBuffer()));
    } catch (error) {
      setFailure(asRequestError(error).message);
    } finally {
      setBusy(false);
    }
  };
  return (
    <section class="cameras" aria-label={s.ar.cameras}>
      <h2>{s.ar.cameras}</h2>
      {eyes.length === 0 && model.scene.value && <p class="quiet">{s.ar.camerasNone}</p>}
      <ul class="rows">
        {eyes.slice(0, 20).map((eye) => (
          <li key={eye.who}>
            <button type="button" data-camera={eye.who} onClick={() => props.onChoose(eye)}>
              <span dir="auto">{eye.who}</span>
              <small>
                {s.ar.cameraAt(index.doc.levels[eye.level]?.name ?? String(eye.level), `${eye.position_m.map((v) => decimals(v, 1)).join(", ")} m`)}
              </small>
            </button>
          </li>
        ))}
      </ul>
      <label class="file" title={s.ar.localiseHelp}>
        <span>{busy ? s.ar.localising : s.ar.localise}</span>
        <input
          type="file"
          accept=".ply"
          disabled={busy || !props.live}
          onChange={(event) => {
            const file = event.currentTarget.files?.[0];
            if (file) void ask(file);
          }}
        />
      </label>
      {failure && (
        <p class="alert-line" role="alert">
          {failure}
        </p>
      )}
      {placed && !failure && (
        <p class={placed.answer.op === "localised" ? "good-line" : "quiet"} role="status">
          {placed.answer.op === "localised" ? s.ar.localised(percent(placed.answer.chance)) : s.ar.notLocalised(placed.answer.reason)}
        </p>
      )}
    </section>
  );
}
