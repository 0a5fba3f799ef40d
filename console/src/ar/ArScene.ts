/**
 * Anchors, a scene's nodes and cameras in space over the floor plan: deck.gl draws, a canvas above it holds the names.
 *
 * Owns the camera, the layers and what is clicked. Knows nothing of the wire: what is shown is handed in whole. Draws when something changed, and only then. Loaded as a chunk of its own.
 */
import { Deck, type Layer, OrbitView, type Viewport } from "@deck.gl/core";
import { LineLayer, PathLayer, ScatterplotLayer, SolidPolygonLayer } from "@deck.gl/layers";
import { SimpleMeshLayer } from "@deck.gl/mesh-layers";
import type { Held } from "../client/ar_frames";
import { type Plan, planOf } from "../map/plan";
import { RAMPS, rampColour } from "../map/ramp";
import type { Segment } from "../map/walls";
import { css, type Rgba, reducedMotion, theme, token } from "../ui/theme";
import type { Point, Polygon, VenueIndex } from "../venue";
import { boundsOf } from "../venue";
import { type Mesh, meshKey } from "./meshes";
import { type Eye, hexOf, type SceneNode } from "./model";
import { axesOf, columnsOf, frustumOf, type Judged, type Line } from "./pose";

export type Shown = {
  level: number;
  anchors: readonly Held[];
  anchor: Held | undefined;
  graph: readonly Judged[];
  nodes: readonly SceneNode[];
  node: string | undefined;
  /** By `meshKey`; a node whose mesh is not among them is a box. */
  meshes: ReadonlyMap<string, Mesh>;
  eyes: readonly Eye[];
};
export type Picked = { kind: "anchor" | "node"; id: string } | undefined;
type Options = { index: VenueIndex; padding: { left: number; right: number; top: number }; shown: Shown; onPick: (picked: Picked) => void };
type Orbit = { target: [number, number, number]; zoom: number; rotationX: number; rotationOrbit: number };
type Coloured = { line: Line; colour: Rgba };

const MIN_ZOOM = -3;
const MAX_ZOOM = 9;
/** Beyond so many anchors their axes would be a thicket: points alone. */
const MAX_AXES = 2_000;
const MAX_BOXES = 5_000;
const MAX_NAMES = 60;
const EYE_M = 1.5;
/** Flat shapes at one height: in the order given, whatever the depth. */
const FLAT = { depthCompare: "always", depthWriteEnabled: false } as const;

export class ArScene {
  readonly #o: Options;
  readonly #root: HTMLElement;
  readonly #deck: Deck<OrbitView>;
  readonly #names: CanvasRenderingContext2D;
  readonly #resize: ResizeObserver;
  readonly #offTheme: () => void;
  readonly #plans: (Plan | undefined)[] = [];
  #shown: Shown;
  #orbit: Orbit;
  #frame = 0;

  constructor(root: HTMLElement, options: Options) {
    this.#o = options;
    this.#root = root;
    this.#shown = options.shown;
    this.#orbit = this.#whole();
    const holder = document.createElement("div");
    holder.className = "map-gl";
    const canvas = document.createElement("canvas");
    canvas.className = "map-names";
    canvas.setAttribute("aria-hidden", "true");
    root.append(holder, canvas);
    this.#names = canvas.getContext("2d")!;
    this.#deck = new Deck<OrbitView>({
      parent: holder,
      views: new OrbitView({ id: "space", orbitAxis: "Z", fovy: 40 }),
      controller: { keyboard: false, inertia: reducedMotion() ? 0 : 150, scrollZoom: { speed: 0.01, smooth: false } } as never,
      viewState: this.#viewState() as never,
      layers: [],
      pickingRadius: 6,
      useDevicePixels: Math.min(2, window.devicePixelRatio || 1),
      style: { touchAction: "none" } as never,
      onViewStateChange: ({ viewState }) => {
        const v = viewState as unknown as Orbit;
        this.#orbit = { target: v.target, zoom: v.zoom, rotationX: v.rotationX, rotationOrbit: v.rotationOrbit };
        this.#touch();
      },
      onAfterRender: () => this.#drawNames(),
      onClick: (info) => {
        const layer = info.layer?.id ?? "";
        if (layer.startsWith("anchor")) this.#o.onPick({ kind: "anchor", id: hexOf((info.object as Held).anchor.id) });
        else if (layer.startsWith("node")) this.#o.onPick({ kind: "node", id: (info.object as SceneNode).node });
        else this.#o.onPick(undefined);
      },
      getCursor: ({ isDragging, isHovering }) => (isDragging ? "grabbing" : isHovering ? "pointer" : "grab"),
    });
    this.#resize = new ResizeObserver(() => this.#touch());
    this.#resize.observe(root);
    this.#offTheme = theme.subscribe(() => queueMicrotask(() => this.#touch()));
    this.#touch();
  }

  destroy(): void {
    cancelAnimationFrame(this.#frame);
    this.#resize.disconnect();
    this.#offTheme();
    this.#deck.finalize();
    this.#root.replaceChildren();
  }

  show(shown: Shown): void {
    const moved = shown.level !== this.#shown.level;
    this.#shown = shown;
    if (moved) this.fit();
    this.#touch();
  }

  setStale(stale: boolean): void {
    this.#root.classList.toggle("map-stale", stale);
  }

  // --- the camera

  fit(): void {
    this.#look(this.#whole());
  }

  /** Bring a place into the middle, near enough to see how it is turned. */
  centre(at: readonly [number, number, number]): void {
    this.#look({ ...this.#orbit, target: [at[0], at[1], at[2]], zoom: Math.max(this.#orbit.zoom, 4.6) });
  }

  zoomBy(step: number): void {
    this.#look({ ...this.#orbit, zoom: this.#orbit.zoom + step });
  }

  turnBy(aroundDeg: number, overDeg: number): void {
    const { rotationOrbit, rotationX } = this.#orbit;
    this.#look({ ...this.#orbit, rotationOrbit: rotationOrbit + aroundDeg, rotationX: Math.min(90, Math.max(5, rotationX + overDeg)) });
  }

  /** Pixels to the right and down of the screen, along the floor. */
  pan(dxPx: number, dyPx: number): void {
    const { target, zoom, rotationOrbit } = this.#orbit;
    const turn = (rotationOrbit * Math.PI) / 180;
    const [dx, dy] = [dxPx / 2 ** zoom, -dyPx / 2 ** zoom];
    const [c, s] = [Math.cos(turn), Math.sin(turn)];
    this.#look({ ...this.#orbit, target: [target[0] + c * dx + s * dy, target[1] - s * dx + c * dy, target[2]] });
  }

  /** Where a place of the venue is in the box, in pixels, for tests; undefined before the first picture. */
  project(at: readonly [number, number, number]): [number, number] | undefined {
    const viewport = this.#viewport();
    return viewport && (viewport.project([...at]).slice(0, 2) as [number, number]);
  }

  get shown(): Shown {
    return this.#shown;
  }

  #viewport(): Viewport | undefined {
    return this.#deck.isInitialized ? this.#deck.getViewports()[0] : undefined;
  }

  #whole(): Orbit {
    const b = boundsOf([this.#o.index.doc.levels[this.#shown.level]?.outline ?? []]);
    const { left, right, top } = this.#o.padding;
    const [w, h] = [this.#root.clientWidth - left - right, this.#root.clientHeight - top];
    const zoom = Math.log2(Math.max(1, Math.min(w / (b.x1 - b.x0), h / (b.y1 - b.y0)) * 0.92));
    const shift = (right - left) / 2 / 2 ** zoom;
    return { target: [(b.x0 + b.x1) / 2 + shift, (b.y0 + b.y1) / 2, 0], zoom, rotationX: 50, rotationOrbit: 0 };
  }

  #look(orbit: Orbit): void {
    this.#orbit = { ...orbit, zoom: Math.min(MAX_ZOOM, Math.max(MIN_ZOOM, orbit.zoom)) };
    this.#touch();
  }

  #viewState() {
    return { ...this.#orbit, minZoom: MIN_ZOOM, maxZoom: MAX_ZOOM, minRotationX: 5, maxRotationX: 90 };
  }

  // --- drawing

  #touch(): void {
    if (this.#frame !== 0) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#deck.setProps({ layers: this.#layers(), viewState: this.#viewState() as never });
    });
  }

  #plan(): Plan {
    const { level } = this.#shown;
    this.#plans[level] ??= planOf(this.#o.index, level);
    return this.#plans[level]!;
  }

  #layers(): Layer[] {
    const { anchors, anchor, graph, nodes, node, meshes, eyes } = this.#shown;
    const lines = (id: string, data: Coloured[], width: number) =>
      new LineLayer<Coloured>({
        id,
        data,
        getSourcePosition: (one) => one.line[0],
        getTargetPosition: (one) => one.line[1],
        getColor: (one) => one.colour,
        getWidth: width,
        widthUnits: "pixels",
        updateTriggers: { getColor: theme.value },
      });
    const all = (found: Line[], colour: Rgba): Coloured[] => found.map((line) => ({ line, colour }));
    // Axes are as long as can be seen, and half a metre at least.
    const axis = Math.max(0.5, 22 / 2 ** this.#orbit.zoom);
    const axisColours = [token("offer"), token("good"), token("me")];
    const turned = anchors.length <= MAX_AXES ? anchors : anchor ? [anchor] : [];
    const ramp = RAMPS[theme.value];
    const foot = token("quiet", 120);
    const drawn = nodes.slice(0, MAX_BOXES);
    const boxes = drawn.filter((one) => one.placed || one.node === node);
    const shapes = new Map<string, SceneNode[]>();
    for (const one of drawn) {
      const key = one.mesh && meshKey(one.mesh);
      if (key !== undefined && meshes.has(key)) shapes.set(key, [...(shapes.get(key) ?? []), one]);
    }
    const shaped = new Set([...shapes.values()].flat());
    return [
      ...this.#floor(),
      ...[...shapes].map(([key, data]) => this.#shape(key, meshes.get(key)!, data, node)),
      lines("feet", turned.map(({ anchor: { position_m: p } }): Coloured => ({ line: [[p[0], p[1], 0], p], colour: foot })), 1), // biome-ignore format: one line
      lines("graph", graph.map((one): Coloured => ({ line: [one.from?.anchor.position_m ?? one.of.anchor.position_m, one.at.position_m], colour: token(one.agrees ? "good" : "alert") })), 2), // biome-ignore format: one line
      new ScatterplotLayer<Judged>({
        id: "seen",
        data: [...graph],
        getPosition: (one) => one.at.position_m,
        getRadius: 4,
        radiusUnits: "pixels",
        billboard: true,
        filled: false,
        stroked: true,
        getLineColor: (one) => token(one.agrees ? "good" : "alert"),
        getLineWidth: 2,
        lineWidthUnits: "pixels",
        updateTriggers: { getLineColor: theme.value },
        parameters: FLAT,
      }),
      lines("axes", turned.flatMap((one) => axesOf(one.anchor, axis).map((line, i): Coloured => ({ line, colour: axisColours[i]! }))), 2), // biome-ignore format: one line
      lines("boxes", boxes.filter((one) => !shaped.has(one) || one.node === node).flatMap((one) => all(one.box, token(one.node === node ? "accent" : one.lost.length > 0 ? "offer" : "label", one.node === node ? 255 : 190))), 1.5), // biome-ignore format: one line
      lines("eyes", eyes.flatMap((eye) => all(frustumOf(eye, EYE_M), token("me"))), 2), // biome-ignore format: one line
      new ScatterplotLayer<SceneNode>({
        id: "nodes",
        data: boxes,
        getPosition: (one) => one.at,
        getRadius: (one) => (one.node === node ? 6 : 4),
        radiusUnits: "pixels",
        billboard: true,
        pickable: true,
        getFillColor: (one) => token(one.node === node ? "accent" : one.lost.length > 0 ? "offer" : "label"),
        updateTriggers: { getFillColor: [theme.value, node], getRadius: node },
        parameters: FLAT,
      }),
      new ScatterplotLayer<Held>({
        id: "anchors",
        data: [...anchors],
        getPosition: (one) => one.anchor.position_m,
        getRadius: (one) => (one === anchor ? 8 : 5.5),
        radiusUnits: "pixels",
        billboard: true,
        pickable: true,
        stroked: true,
        getFillColor: (one) => [...rampColour(ramp, one.quality), 255] as Rgba,
        getLineColor: (one) => token(one === anchor ? "accent" : "surface"),
        getLineWidth: (one) => (one === anchor ? 3 : 1.5),
        lineWidthUnits: "pixels",
        updateTriggers: { getFillColor: theme.value, getLineColor: [theme.value, anchor], getRadius: anchor, getLineWidth: anchor },
        parameters: FLAT,
      }),
    ];
  }

  /** The nodes that are of one mesh, each where its transform and those above put it. */
  #shape(key: string, mesh: Mesh, data: SceneNode[], node: string | undefined): Layer {
    return new SimpleMeshLayer<SceneNode>({
      id: `node-shape-${key}`,
      data,
      mesh: {
        attributes: {
          positions: { value: mesh.positions, size: 3 },
          normals: { value: mesh.normals, size: 3 },
          colors: { value: mesh.colours, size: 4 },
        },
        indices: { value: mesh.indices, size: 1 },
      } as never,
      getPosition: [0, 0, 0],
      getTransformMatrix: (one) => columnsOf(one.world),
      getColor: (one) => (one.node === node ? token("accent") : [255, 255, 255, 255]),
      pickable: true,
      updateTriggers: { getColor: [theme.value, node] },
    });
  }

  #floor(): Layer[] {
    const plan = this.#plan();
    const { level } = this.#shown;
    const solid = (id: string, data: Polygon[], name: string) =>
      new SolidPolygonLayer<Polygon>({
        id: `${id}-${level}`,
        data,
        getPolygon: (p: Polygon) => p as never,
        getFillColor: token(name),
        updateTriggers: { getFillColor: theme.value },
        parameters: FLAT,
      });
    const lines = (id: string, data: Segment[], name: string, width: number) =>
      new LineLayer<Segment>({
        id: `${id}-${level}`,
        data,
        getSourcePosition: (s: Segment) => s[0] as never,
        getTargetPosition: (s: Segment) => s[1] as never,
        getColor: token(name),
        getWidth: width,
        widthUnits: "pixels",
        updateTriggers: { getColor: theme.value },
        parameters: FLAT,
      });
    return [
      solid("floor", plan.floor, "floor"),
      solid("plaza", plan.fills.floor, "floor"),
      solid("shop", plan.fills.shop, "shop"),
      solid("shut", plan.fills.shut, "shut"),
      solid("treads", plan.fills.treads, "treads"),
      solid("void", plan.fills.void, "void"),
      new PathLayer<Point[]>({
        id: `zones-${level}`,
        data: plan.zones,
        getPath: (p: Point[]) => p as never,
        getColor: token("label-quiet", 150),
        getWidth: 1,
        widthUnits: "pixels",
        updateTriggers: { getColor: theme.value },
        parameters: FLAT,
      }),
      lines("walls", plan.walls, "wall", 1),
      lines("shell", plan.shell, "shell", 2),
      lines("fences", plan.fences, "shell", 1),
    ];
  }

  /** Names of cameras, nodes, what is selected and, where there is room left, shops: text shaped by the browser. */
  #drawNames(): void {
    const viewport = this.#viewport();
    const { clientWidth: w, clientHeight: h } = this.#root;
    const canvas = this.#names.canvas;
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
      canvas.width = Math.round(w * ratio);
      canvas.height = Math.round(h * ratio);
    }
    const g = this.#names;
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, w, h);
    if (viewport === undefined) return;
    const { level, anchor, nodes, node, eyes } = this.#shown;
    const chosen = nodes.find((one) => one.node === node);
    const wanted: { text: string; at: readonly number[]; colour: string }[] = [
      ...(anchor ? [{ text: anchor.anchor.tags.join(", ") || hexOf(anchor.anchor.id).slice(0, 8), at: anchor.anchor.position_m, colour: css("accent") }] : []),
      ...(chosen ? [{ text: chosen.name, at: chosen.at, colour: css("accent") }] : []),
      ...eyes.map((eye) => ({ text: eye.who, at: eye.position_m, colour: css("me") })),
      ...nodes.filter((one) => one.placed && one !== chosen).slice(0, 500).map((one) => ({ text: one.name, at: one.at, colour: css("label") })),
      ...(this.#o.index.spotsByLevel[level] ?? []).filter((spot) => spot.isShop).map((spot) => ({ text: spot.name, at: [...spot.centre, 0], colour: css("label-quiet") })),
    ]; // biome-ignore format: a table
    g.font = "560 12px 'Inter Variable', system-ui, sans-serif";
    g.textAlign = "center";
    g.lineJoin = "round";
    g.lineWidth = 3;
    g.strokeStyle = css("halo");
    const taken: [number, number, number, number][] = [];
    for (const { text, at, colour } of wanted) {
      if (taken.length >= MAX_NAMES) break;
      const [x, y] = viewport.project([at[0]!, at[1]!, at[2] ?? 0]) as [number, number];
      const half = g.measureText(text).width / 2 + 3;
      const box: [number, number, number, number] = [x - half, y - 26, x + half, y - 8];
      if (box[0] < 0 || box[2] > w || box[1] < 0 || box[3] > h) continue;
      if (taken.some((b) => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3])) continue;
      taken.push(box);
      g.strokeText(text, x, y - 12);
      g.fillStyle = colour;
      g.fillText(text, x, y - 12);
    }
  }
}
