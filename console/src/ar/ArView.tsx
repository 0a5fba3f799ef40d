/** The AR screen for operators: a level's anchors, a scene and its cameras in space, and the same as lists. Owns the session and the address while shown. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { RequestError, type Wire } from "../client/wire";
import { count, percent } from "../format";
import { RAMPS, rampColour } from "../map/ramp";
import { blocked, firstLevel, Levels, Side, TopBar, useKeys, useOperator } from "../operator/shell";
import { s } from "../strings";
import { ThemeButton } from "../ui/parts";
import { theme } from "../ui/theme";
import { DEFAULT_LAYERS, formatView, NAME, type View } from "../url";
import { boundsOf, type VenueIndex } from "../venue";
import { inspect } from "../window";
import { AnchorList, AnchorPanel } from "./AnchorPanel";
import type { ArScene, Picked, Shown } from "./ArScene";
import { type Mesh, type MeshName, MeshShelf, meshKey } from "./meshes";
import { ArModel, type Eye, graphOf } from "./model";
import { CameraPanel, NodePanel, SceneTree } from "./ScenePanel";
import { SpaceView } from "./SpaceView";

type Props = { view: Extract<View, { screen: "ar" }>; index: VenueIndex; onView: (view: View) => void };
const PADDING = { top: 76, right: 368, left: 272 };
const NARROW = { top: 76, right: 24, left: 24 };
const NOBODY: readonly Eye[] = [];
const failureOf = (found: Mesh | RangeError | undefined) => (found instanceof RangeError ? found.message : undefined);

const watch = (wire: Wire, venue: string) => new ArModel(wire, venue);

export function ArView({ view, index, onView }: Props) {
  const operator = useOperator(view.tenant, index.doc.id, watch);
  const { model, state, live, stale } = operator;
  const [scene, setScene] = useState<ArScene>();
  const [node, setNode] = useState<string>();
  const latest = useRef(view);
  latest.current = view;
  const level = Math.min(view.level ?? firstLevel(index), index.doc.levels.length - 1);
  const go = (change: Partial<Props["view"]>) => onView({ ...latest.current, ...change });

  useEffect(() => model?.look(level, boundsOf([index.doc.levels[level]?.outline ?? []])), [model, level]);
  useEffect(() => model?.open(view.scene), [model, view.scene]);
  const connected = useRef(false);
  useEffect(() => {
    // The first connection finds the questions waiting; each later one has missed something.
    if (live && connected.current) void model?.refresh();
    connected.current ||= live;
  }, [live, model]);
  useEffect(() => {
    if (live && view.anchor !== undefined) void model?.readGraph();
  }, [live, view.anchor, model]);
  useEffect(() => scene?.setStale(stale), [state?.kind, scene]);

  const anchors = model?.anchors.value;
  const anchor = view.anchor === undefined ? undefined : anchors?.get(view.anchor);
  const graph = model?.graph.value;
  const judged = useMemo(
    () => (view.anchor === undefined || graph === undefined || graph instanceof RequestError ? [] : graphOf(graph, view.anchor)),
    [graph, view.anchor],
  );
  const drawn = model?.scene.value;
  const shelf = useMemo(() => new MeshShelf(view.tenant), [view.tenant]);
  useEffect(() => shelf.want((drawn?.nodes ?? []).map((one) => one.mesh).filter((one): one is MeshName => one !== undefined)), [shelf, drawn]);
  const read = shelf.meshes.value;
  const meshes = useMemo(() => new Map([...read].filter((one): one is [string, Mesh] => !(one[1] instanceof RangeError))), [read]);
  const answer = model?.placed.value?.answer;
  const present = model?.present.value ?? NOBODY;
  const eyes = useMemo(
    (): Eye[] => [
      ...present,
      ...(answer?.op === "localised"
        ? [{ who: model!.placed.value!.file, level: answer.level, position_m: answer.position_m, rotation: answer.rotation }]
        : []),
    ],
    [present, answer],
  );
  const shown = useMemo(
    (): Shown => ({
      level,
      anchors: [...(anchors?.values() ?? [])],
      anchor,
      graph: judged,
      nodes: drawn?.nodes ?? [],
      node,
      meshes,
      eyes: eyes.filter((eye) => eye.level === level),
    }),
    [level, anchors, anchor, judged, drawn, node, meshes, eyes],
  );
  useEffect(() => scene?.show(shown), [scene, shown]);
  useEffect(() => inspect({ ar: scene, scene: undefined, shopper: undefined }), [scene]);

  const pick = (picked: Picked, centre = false) => {
    setNode(picked?.kind === "node" ? picked.id : undefined);
    go({ anchor: picked?.kind === "anchor" ? picked.id : undefined });
    if (!centre) return;
    const at = picked?.kind === "anchor" ? anchors?.get(picked.id)?.anchor.position_m : drawn?.nodes.find((one) => one.node === picked?.id)?.at;
    if (at) scene?.centre(at);
  };

  const drop = () => {
    setNode(undefined);
    go({ anchor: undefined });
  };
  useKeys(index.doc.levels.length, (next) => go({ level: next, anchor: undefined }), drop);

  const barred = blocked(operator);
  if (barred) return barred;
  const levelName = index.doc.levels[level]!.name;
  const chosen = drawn?.nodes.find((one) => one.node === node);
  return (
    <main class={`operator ar ${stale ? "stale" : ""}`}>
      <h1 class="hidden">{s.ar.title(index.doc.name)}</h1>
      <SpaceView
        index={index}
        padding={innerWidth > 700 ? PADDING : NARROW}
        shown={shown}
        label={s.ar.space(index.doc.name, levelName)}
        onScene={setScene}
        onPick={(picked) => pick(picked)}
      />
      <TopBar
        operator={operator}
        back={formatView({ screen: "operator", tenant: view.tenant, venue: view.venue, level, layers: DEFAULT_LAYERS })}
        backLabel={s.ar.back}
        title={s.ar.title(index.doc.name)}
      >
        <SceneName name={view.scene} onName={(name) => go({ scene: name })} />
        <ThemeButton />
      </TopBar>
      {model && (
        <>
          <nav class="panel rail" aria-label={s.operator.levels}>
            <div class="total">
              <b data-figure="anchors">{model.loading.value && anchors?.size === 0 ? "–" : count(anchors?.size ?? 0)}</b>
              <span>{s.ar.here(levelName)}</span>
            </div>
            <Levels index={index} level={level} show={count} onLevel={(next) => go({ level: next, anchor: undefined })} />
            <Quality />
            <CameraPanel
              model={model}
              eyes={eyes}
              index={index}
              live={live}
              onChoose={(eye) => (eye.level === level ? scene?.centre(eye.position_m) : go({ level: eye.level }))}
            />
          </nav>
          {chosen && drawn ? (
            <Side label={chosen.name} onClose={() => setNode(undefined)}>
              <NodePanel row={chosen} scene={drawn} failure={chosen.mesh && failureOf(read.get(meshKey(chosen.mesh)))} />
            </Side>
          ) : view.anchor !== undefined ? (
            <Side label={s.ar.anchor} onClose={() => go({ anchor: undefined })}>
              <AnchorPanel
                id={view.anchor}
                held={anchor}
                loading={model.loading.value}
                graph={graph}
                judged={judged}
                live={live}
                timezone={index.doc.timezone}
                onRead={() => void model.readGraph()}
                onChoose={(id) => pick({ kind: "anchor", id }, true)}
                onScene={(name) => go({ scene: name })}
              />
            </Side>
          ) : (
            <aside class="panel side" aria-label={s.ar.anchors}>
              {model.failure.value && (
                <p class="alert-line" role="alert">
                  {model.failure.value.message}
                </p>
              )}
              {drawn && (
                <SceneTree scene={drawn} chosen={node} onChoose={(id) => pick({ kind: "node", id }, true)} onClose={() => go({ scene: undefined })} />
              )}
              <AnchorList
                anchors={shown.anchors}
                loading={model.loading.value}
                whole={model.whole.value}
                onChoose={(id) => pick({ kind: "anchor", id }, true)}
              />
            </aside>
          )}
        </>
      )}
    </main>
  );
}

function SceneName({ name, onName }: { name: string | undefined; onName: (name: string) => void }) {
  const [text, setText] = useState(name ?? "");
  useEffect(() => setText(name ?? ""), [name]);
  const usable = NAME.test(text.trim());
  return (
    <form
      class="scene-name"
      onSubmit={(event) => {
        event.preventDefault();
        if (usable) onName(text.trim());
      }}
    >
      <input aria-label={s.ar.sceneName} placeholder={s.ar.sceneName} value={text} onInput={(e) => setText(e.currentTarget.value)} />
      <button type="submit" disabled={!usable || text.trim() === name}>
        {s.ar.sceneOpen}
      </button>
    </form>
  );
}

/** What the colours of anchors and of their axes say. */
function Quality() {
  const stops = [0, 0.25, 0.5, 0.75, 1].map((t) => `rgb(${rampColour(RAMPS[theme.value], t).join(" ")})`);
  return (
    <div class="legend">
      <h2>{s.ar.legend}</h2>
      <div class="quality-ramp" role="img" aria-label={`${s.ar.legend}: ${percent(0)} – ${percent(1)}`}>
        <i style={{ background: `linear-gradient(90deg, ${stops.join(", ")})` }} />
        <small>{percent(0)}</small>
        <small>{percent(1)}</small>
      </div>
      <p class="quiet">{s.ar.axes}</p>
    </div>
  );
}
