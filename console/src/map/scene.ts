/**
 * The map: deck.gl draws floor, shops, people and density; a canvas above it draws names and pictograms.
 *
 * Owns the camera, the layers and one animation loop that runs only while something moves. Knows nothing of the wire or the views' state: frames, offers and the
 * selection are handed in; clicks, camera moves and the number on screen are handed out. Loaded as a chunk of its own.
 */
import { Deck, type Layer, OrthographicView } from "@deck.gl/core";
import { BitmapLayer, LineLayer, PathLayer, ScatterplotLayer, SolidPolygonLayer } from "@deck.gl/layers";
import { f4, u2, u4 } from "../client/codec";
import type { DensityFrame, DotsFrame } from "../client/frames";
import { decimals } from "../format";
import { s } from "../strings";
import { css, reducedMotion, theme, token } from "../ui/theme";
import type { Camera, Layer as LayerName } from "../url";
import type { Bounds, Point, Polygon, Spot, VenueIndex } from "../venue";
import { boundsOf, ringArea } from "../venue";
import { fitCamera, lookAt, MAX_ZOOM, MIN_ZOOM, type Padding, toScreen, toVenue } from "./camera";
import { Dots, FARTHEST_DM } from "./dots";
import { type Grid, paintField, perSquareMetre, smooth } from "./field";
import { type Figure, figureLayers } from "./figures";
import { discWeight, dotRadius, ease, fieldWeight } from "./lod";
import { Overlay } from "./overlay";
import { closed, type Plan, planOf } from "./plan";
import { RAMPS } from "./ramp";
import type { Segment } from "./walls";

export type OfferMark = { level: number; point: Point; radiusM?: number; flash: boolean };
/** `region`: the outline of where I may be; left out: a circle of `radiusM`. */
export type Me = { level: number; point: Point; headingRad?: number; radiusM: number; region?: Point[]; target?: Point };

type Picture = { image: ImageData; bounds: [number, number, number, number] };
/** A click so near to a dot means that dot. */
const CLICK_PX = 9;
/** Pixels of a painted field, about. */
const FIELD_PX = 250_000;

export type SceneOptions = {
  index: VenueIndex;
  level: number;
  layers: readonly LayerName[];
  padding: Padding;
  camera?: Camera;
  onPick: (spot: Spot | undefined, point: Point) => void;
  onCamera: (camera: Camera) => void;
  onScreen?: (people: number, weight: number) => void;
};

export class MapScene {
  readonly dots = new Dots();
  readonly overlay: Overlay;
  #o: SceneOptions;
  readonly #root: HTMLElement;
  /** How sure the chosen dot is, in words beside it. */
  readonly #sure: HTMLElement;
  readonly #deck: Deck<OrthographicView>;
  #plans: (Plan | undefined)[] = [];
  #level: number;
  #layers: readonly LayerName[];
  #padding: Padding;
  #camera: Camera;
  #density: DensityFrame | undefined;
  #newest: DotsFrame | undefined;
  #fieldImage: Picture | undefined;
  #heat: { grid: Grid; most: number } | undefined;
  #heatImage: Picture | undefined;
  readonly #figures = new Map<string, readonly Figure[]>();
  #weight = 0;
  #targetWeight = 0;
  #offers: OfferMark[] = [];
  #selected: Spot | undefined;
  #hovered: Spot | undefined;
  #me: Me | undefined;
  #chosen: number | undefined;
  #taking = false;
  #inView = 0;
  #lastFrame = 0;
  #frame = 0;
  #dirty = true;
  #namesDirty = true;
  #glide: { from: Camera; to: Camera; start: number } | undefined;
  #stale = false;
  readonly #resize: ResizeObserver;
  readonly #offTheme: () => void;

  constructor(root: HTMLElement, options: SceneOptions) {
    this.#o = options;
    this.#root = root;
    this.#level = options.level;
    this.#layers = options.layers;
    this.#padding = options.padding;
    this.#camera = options.camera ?? fitCamera(this.#levelBounds(), root.clientWidth, root.clientHeight, options.padding);
    const holder = document.createElement("div");
    holder.className = "map-gl";
    const canvas = document.createElement("canvas");
    canvas.className = "map-names";
    canvas.setAttribute("aria-hidden", "true");
    this.#sure = document.createElement("div");
    this.#sure.className = "map-sure";
    this.#sure.hidden = true;
    root.append(holder, canvas, this.#sure);
    this.overlay = new Overlay(canvas, options.index);
    this.overlay.setLevel(this.#level);
    this.#deck = new Deck<OrthographicView>({
      parent: holder,
      views: new OrthographicView({ id: "map", flipY: false }),
      controller: controls(true) as never,
      viewState: this.#viewState() as never,
      layers: [],
      pickingRadius: 0,
      useDevicePixels: Math.min(2, window.devicePixelRatio || 1),
      style: { touchAction: "none" } as never,
      onViewStateChange: ({ viewState }) => {
        const v = viewState as unknown as { target: [number, number]; zoom: number | [number, number] };
        const zoom = Array.isArray(v.zoom) ? v.zoom[0] : v.zoom;
        this.#glide = undefined;
        this.#look({ x: v.target[0], y: v.target[1], zoom });
      },
      onClick: (info) => {
        if (info.coordinate) this.#picked([info.coordinate[0]!, info.coordinate[1]!]);
      },
      onHover: (info) => {
        const spot = info.coordinate ? this.#o.index.at(this.#level, info.coordinate[0]!, info.coordinate[1]!) : undefined;
        if (spot !== this.#hovered) {
          this.#hovered = spot;
          this.#touch();
        }
      },
      getCursor: ({ isDragging }) => (isDragging ? "grabbing" : this.#hovered ? "pointer" : "default"),
    });
    this.#resize = new ResizeObserver(() => {
      this.#count();
      this.#touch();
    });
    this.#resize.observe(root);
    this.#offTheme = theme.subscribe(() => {
      this.#fieldImage = undefined;
      this.#heatImage = undefined;
      this.dots.paint(RAMPS[theme.value]);
      queueMicrotask(() => this.#touch());
    });
    void document.fonts.load("560 12px 'Inter Variable'").then(() => {
      this.overlay.fontReady();
      this.#touch();
    });
    this.#touch();
  }

  destroy(): void {
    cancelAnimationFrame(this.#frame);
    this.#resize.disconnect();
    this.#offTheme();
    this.#deck.finalize();
    this.#root.replaceChildren();
  }

  // --- what is shown

  setLevel(level: number): void {
    if (level === this.#level) return;
    this.#level = level;
    this.dots.clear();
    this.#chosen = undefined;
    this.#newest = undefined;
    this.#density = undefined;
    this.#fieldImage = undefined;
    this.setHeat(undefined);
    this.#hovered = undefined;
    this.overlay.setLevel(level);
    this.#count();
    this.#touch();
  }

  /** The same venue after its map was edited. */
  setIndex(index: VenueIndex): void {
    if (index === this.#o.index) return;
    this.#o = { ...this.#o, index };
    this.#plans = [];
    this.#hovered = undefined;
    this.overlay.setIndex(index);
    this.overlay.setLevel(this.#level);
    this.#touch();
  }

  /** What a panel draws over the plan; none: nothing of it any more. */
  setFigures(owner: string, figures: readonly Figure[]): void {
    if (figures.length === 0 && !this.#figures.has(owner)) return;
    if (figures.length === 0) this.#figures.delete(owner);
    else this.#figures.set(owner, figures);
    this.overlay.setNotes([...this.#figures.values()].flat().filter((f) => f.kind === "name"));
    this.#touch();
  }

  /** While corners are set, two quick clicks are two corners, not a step nearer. */
  setTaking(taking: boolean): void {
    this.#taking = taking;
    this.#deck.setProps({ controller: controls(!taking) as never });
  }

  /** Where people have spent their time on this level, and the top of its scale. */
  setHeat(heat: { grid: Grid; most: number } | undefined): void {
    if (heat === this.#heat) return;
    this.#heat = heat;
    this.#heatImage = undefined;
    this.#touch(false);
  }

  setLayers(layers: readonly LayerName[]): void {
    this.#layers = layers;
    this.#touch();
  }

  setPadding(padding: Padding): void {
    this.#padding = padding;
  }

  /** Greyed: what is drawn is old. */
  setStale(stale: boolean): void {
    this.#stale = stale;
    this.#root.classList.toggle("map-stale", stale);
  }

  select(spot: Spot | undefined): void {
    this.#selected = spot;
    this.#touch();
  }

  /** Say of this pseudonym how sure its place is; undefined: of nobody. */
  chooseDot(pseudonym: number | undefined): void {
    if (pseudonym === this.#chosen) return;
    this.#chosen = pseudonym;
    this.#touch(false);
  }

  setOffers(offers: OfferMark[]): void {
    this.#offers = offers;
    this.#touch();
  }

  setMe(me: Me | undefined): void {
    this.#me = me;
    this.#touch();
  }

  /** Only the newest frame is kept until the next picture is drawn: a hidden tab gathers nothing. */
  takeDots(frame: DotsFrame): void {
    if (frame.level !== this.#level || this.#stale) return;
    this.#newest = frame;
    this.#touch(false);
  }

  takeDensity(frame: DensityFrame): void {
    if (frame.level !== this.#level) return;
    this.#density = frame;
    this.#fieldImage = undefined;
    this.#touch(false);
  }

  // --- the camera

  get camera(): Camera {
    return this.#camera;
  }

  fit(): void {
    this.#flyTo(fitCamera(this.#levelBounds(), this.#root.clientWidth, this.#root.clientHeight, this.#padding));
  }

  /** Bring a point into the middle of what panels leave free; `zoom` where given, else the present one. */
  centre(point: Point, zoom = this.#camera.zoom): void {
    this.#flyTo(lookAt(point, zoom, this.#padding));
  }

  zoomBy(step: number): void {
    this.#flyTo(lookAt(this.middle(), Math.min(MAX_ZOOM, Math.max(MIN_ZOOM, this.#camera.zoom + step)), this.#padding));
  }

  /** The point in the middle of what panels leave free. */
  middle(): Point {
    const { clientWidth: w, clientHeight: h } = this.#root;
    const p = this.#padding;
    return toVenue(this.#camera, w, h, [(p.left + w - p.right) / 2, (p.top + h - p.bottom) / 2]);
  }

  /** Bring a box into what panels leave free, no nearer than a shop front needs. */
  show(box: Bounds): void {
    const camera = fitCamera(box, this.#root.clientWidth, this.#root.clientHeight, this.#padding);
    this.#flyTo(camera.zoom <= 3.6 ? camera : lookAt([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2], 3.6, this.#padding));
  }

  pan(dxPx: number, dyPx: number): void {
    const px = 2 ** this.#camera.zoom;
    this.#look({ ...this.#camera, x: this.#camera.x + dxPx / px, y: this.#camera.y - dyPx / px });
  }

  /** A point in pixels of the map's box, for tests and for tools that click on places. */
  project(point: Point): Point {
    return toScreen(this.#camera, this.#root.clientWidth, this.#root.clientHeight, point);
  }

  #levelBounds(): Bounds {
    return boundsOf([this.#o.index.doc.levels[this.#level]?.outline ?? []]);
  }

  #flyTo(to: Camera): void {
    if (reducedMotion()) this.#look(to);
    else this.#glide = { from: this.#camera, to, start: performance.now() };
    this.#touch();
  }

  #look(camera: Camera): void {
    this.#camera = { ...camera, zoom: Math.min(MAX_ZOOM, Math.max(MIN_ZOOM, camera.zoom)) };
    this.#o.onCamera(this.#camera);
    this.#count();
    this.#touch();
  }

  #viewState() {
    return { target: [this.#camera.x, this.#camera.y, 0], zoom: this.#camera.zoom, minZoom: MIN_ZOOM, maxZoom: MAX_ZOOM };
  }

  #picked(point: Point): void {
    this.chooseDot(this.#taking || !this.#dotsShown() ? undefined : this.dots.nearest(point[0], point[1], CLICK_PX / 2 ** this.#camera.zoom));
    this.#o.onPick(this.#o.index.at(this.#level, point[0], point[1]), point);
  }

  #count(): void {
    const { clientWidth: w, clientHeight: h } = this.#root;
    const [x0, y1] = toVenue(this.#camera, w, h, [0, 0]);
    const [x1, y0] = toVenue(this.#camera, w, h, [w, h]);
    const n = this.dots.within(x0, y0, x1, y1);
    this.#inView = n;
    this.#targetWeight = fieldWeight(n);
    this.#o.onScreen?.(n, this.#targetWeight);
  }

  // --- drawing

  /** Something changed. `names`: names and pictograms too, which people's steps do not touch. */
  #touch(names = true): void {
    this.#dirty = true;
    this.#namesDirty ||= names;
    if (this.#frame === 0) this.#frame = requestAnimationFrame(this.#animate);
  }

  readonly #animate = (nowMs: number): void => {
    this.#frame = 0;
    const dt = Math.min(0.1, (nowMs - this.#lastFrame) / 1000);
    this.#lastFrame = nowMs;
    let again = false;
    if (this.#newest) {
      const { pseudonym, x, y, radius } = this.#newest;
      this.#newest = undefined;
      this.dots.take(u4(pseudonym), f4(x), f4(y), performance.now() / 1000, RAMPS[theme.value], radius?.length ? radius : undefined);
      this.#count();
    }
    if (this.#glide) {
      const t = Math.min(1, (performance.now() - this.#glide.start) / 180);
      const s = 1 - (1 - t) ** 3;
      const { from, to } = this.#glide;
      this.#camera = { x: from.x + (to.x - from.x) * s, y: from.y + (to.y - from.y) * s, zoom: from.zoom + (to.zoom - from.zoom) * s };
      this.#count();
      if (t >= 1) {
        this.#glide = undefined;
        this.#o.onCamera(this.#camera);
      } else again = true;
      this.#dirty = true;
      this.#namesDirty = true;
    }
    const weight = ease(this.#weight, this.#targetWeight, dt, reducedMotion() ? 0 : 0.35);
    if (weight !== this.#weight) {
      this.#weight = weight;
      this.#dirty = true;
      again ||= weight !== this.#targetWeight;
    }
    if (this.#weight < 1 && this.#layers.includes("people") && !this.#stale && this.dots.advance(performance.now() / 1000)) {
      again = true;
      this.#dirty = true;
    }
    if (this.#dirty) {
      this.#dirty = false;
      this.#draw();
    }
    if (again && this.#frame === 0) this.#frame = requestAnimationFrame(this.#animate);
  };

  #draw(): void {
    this.#deck.setProps({ layers: this.#deckLayers(), viewState: this.#viewState() as never });
    this.#saySure();
    if (!this.#namesDirty) return;
    this.#namesDirty = false;
    this.overlay.draw(
      {
        toScreen: (p) => toScreen(this.#camera, this.#root.clientWidth, this.#root.clientHeight, p),
        pxPerM: 2 ** this.#camera.zoom,
        width: this.#root.clientWidth,
        height: this.#root.clientHeight,
      },
      { label: css("label"), quiet: css("label-quiet"), halo: css("halo"), plate: css("surface"), rim: css("wall"), accent: css("accent") },
      this.#layers.includes("labels"),
      this.#clearing(),
    );
  }

  #dotsShown(): boolean {
    return this.#layers.includes("people") && this.#weight < 1 && this.dots.count > 0;
  }

  #chosenDot(): { point: Point; radiusM: number } | undefined {
    return this.#chosen !== undefined && this.#dotsShown() ? this.dots.of(this.#chosen) : undefined;
  }

  #saySure(): void {
    const dot = this.#chosenDot();
    this.#sure.hidden = dot === undefined;
    if (dot === undefined) return;
    const [x, y] = this.project(dot.point);
    const { radiusM } = dot;
    this.#sure.style.transform = `translate(${Math.round(x + 12)}px, ${Math.round(y - 26)}px)`;
    const said = radiusM === 0 ? s.map.unsure : (radiusM * 10 < FARTHEST_DM ? s.map.sure : s.map.sureOrMore)(decimals(radiusM, 1));
    if (this.#sure.textContent !== said) this.#sure.textContent = said;
  }

  #plan(): Plan {
    this.#plans[this.#level] ??= planOf(this.#o.index, this.#level);
    return this.#plans[this.#level]!;
  }

  #field(): Picture | undefined {
    const d = this.#density;
    if (this.#fieldImage || d === undefined) return this.#fieldImage;
    const grid = smooth(perSquareMetre(u2(d.count), { x0: d.x0_m, y0: d.y0_m, cell: d.cell_m, cols: d.cols, rows: d.rows }));
    this.#fieldImage = picture(grid);
    return this.#fieldImage;
  }

  #heatPicture(): Picture | undefined {
    if (this.#heatImage || this.#heat === undefined) return this.#heatImage;
    const { grid, most } = this.#heat;
    this.#heatImage = picture(smooth(grid), (v) => (most > 0 ? v / most : 0), most / 8 || 1);
    return this.#heatImage;
  }

  /** Pixels around me that no name may cover. */
  #clearing(): { x: number; y: number; radius: number } | undefined {
    if (this.#me === undefined || this.#me.level !== this.#level) return undefined;
    const [x, y] = this.project(this.#me.point);
    return { x, y, radius: 16 };
  }

  #deckLayers(): Layer[] {
    const plan = this.#plan();
    const level = this.#level;
    const px = 2 ** this.#camera.zoom;
    const shows = (name: LayerName) => this.#layers.includes(name);
    const solid = (id: string, data: Polygon[], name: string, alpha = 255) =>
      new SolidPolygonLayer<Polygon>({
        id: `${id}-${level}`,
        data,
        getPolygon: (p: Polygon) => p as never,
        getFillColor: token(name, alpha),
        updateTriggers: { getFillColor: [theme.value, alpha] },
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
        updateTriggers: { getColor: theme.value, getWidth: width },
      });
    const thin = px < 1.5 ? 0.6 : px < 5 ? 1 : 1.5;
    const out: Layer[] = [
      solid("floor", plan.floor, "floor"),
      solid("plaza", plan.fills.floor, "floor"),
      solid("shop", plan.fills.shop, "shop"),
      solid("shut", plan.fills.shut, "shut"),
      solid("treads", plan.fills.treads, "treads"),
    ];
    const fieldAlpha = Math.max(shows("density") ? (this.#me ? 0.5 : 0.85) : 0, shows("people") ? this.#weight : 0);
    const field = fieldAlpha > 0 ? this.#field() : undefined;
    if (field) out.push(bitmap(`density-${level}`, field, fieldAlpha));
    const heat = shows("heat") ? this.#heatPicture() : undefined;
    if (heat) out.push(bitmap(`heat-${level}`, heat, 0.85));
    out.push(solid("around", plan.around, "outside"), solid("void", plan.fills.void, "void"));
    for (const spot of new Set([this.#hovered, this.#selected])) {
      if (spot && spot.level === level && spot.kind === "unit")
        out.push(
          solid(`tint-${spot === this.#selected ? "selected" : "hover"}-${spot.id}`, spot.polygon, "accent", spot === this.#selected ? 52 : 24),
        );
    }
    out.push(
      new PathLayer<Point[]>({
        id: `zones-${level}`,
        data: plan.zones,
        getPath: (p: Point[]) => p as never,
        getColor: token("label-quiet", 150),
        getWidth: 1,
        widthUnits: "pixels",
        updateTriggers: { getColor: theme.value },
      }),
      lines("walls", plan.walls, "wall", thin),
      lines("shell", plan.shell, "shell", thin * 2),
      lines("fences", plan.fences, "shell", Math.max(1, thin)),
    );
    if (shows("offers")) {
      const marks = this.#offers.filter((o) => o.level === level);
      out.push(
        new ScatterplotLayer<OfferMark>({
          id: `reach-${level}`,
          data: marks.filter((o) => o.radiusM !== undefined),
          getPosition: (o: OfferMark) => o.point as never,
          getRadius: (o: OfferMark) => o.radiusM ?? 0,
          radiusUnits: "common",
          filled: true,
          stroked: true,
          getFillColor: token("offer", 18),
          getLineColor: token("offer", 130),
          getLineWidth: 1,
          lineWidthUnits: "pixels",
          updateTriggers: { getFillColor: theme.value, getLineColor: theme.value },
        }),
      );
    }
    if (this.#dotsShown()) {
      out.push(...this.#discLayers(px));
      out.push(
        new ScatterplotLayer({
          id: `people-${level}`,
          data: {
            length: this.dots.count,
            attributes: { getPosition: { value: this.dots.xy, size: 2 }, getFillColor: { value: this.dots.colour, size: 4, normalized: true } },
          },
          getRadius: dotRadius(px),
          radiusUnits: "pixels",
          opacity: 1 - this.#weight,
          stroked: px > 6,
          getLineColor: token("floor", 200),
          getLineWidth: 1,
          lineWidthUnits: "pixels",
          updateTriggers: { getRadius: px, getLineColor: theme.value },
        }),
      );
    }
    if (shows("offers")) {
      const marks = this.#offers.filter((o) => o.level === level);
      out.push(
        new ScatterplotLayer<OfferMark>({
          id: `offers-${level}`,
          data: marks,
          getPosition: (o: OfferMark) => o.point as never,
          getRadius: (o: OfferMark) => (o.flash ? 6 : 4.5),
          radiusUnits: "pixels",
          stroked: true,
          getFillColor: token("offer"),
          getLineColor: token("surface"),
          getLineWidth: 1.5,
          lineWidthUnits: "pixels",
          updateTriggers: { getFillColor: theme.value, getLineColor: theme.value },
        }),
        new ScatterplotLayer<OfferMark>({
          id: `flash-${level}`,
          data: marks.filter((o) => o.flash),
          getPosition: (o: OfferMark) => o.point as never,
          getRadius: 12,
          radiusUnits: "pixels",
          filled: false,
          stroked: true,
          getLineColor: token("offer"),
          getLineWidth: 2,
          lineWidthUnits: "pixels",
          updateTriggers: { getLineColor: theme.value },
        }),
      );
    }
    if (this.#selected && this.#selected.level === level) {
      out.push(
        new PathLayer<Point[]>({
          id: `selected-${this.#selected.id}`,
          data: this.#selected.polygon.filter((p) => Math.abs(ringArea(p[0] ?? [])) > 0).map((p) => closed(p[0]!)),
          getPath: (p: Point[]) => p as never,
          getColor: token("accent"),
          getWidth: 2.5,
          widthUnits: "pixels",
          jointRounded: true,
          updateTriggers: { getColor: theme.value },
        }),
      );
    }
    for (const [owner, figures] of this.#figures) out.push(...figureLayers(owner, figures, level));
    if (this.#me && this.#me.level === level) out.push(...this.#meLayers(this.#me, px));
    return out;
  }

  /** How sure dots are: soft discs around all of them where that is no clutter, and around the chosen one anyway. */
  #discLayers(px: number): Layer[] {
    const out: Layer[] = [];
    const weight = discWeight(px, this.#inView) * (1 - this.#weight);
    if (weight > 0)
      for (const [share, alpha] of [
        [1, 20],
        [0.72, 16],
        [0.45, 16],
      ] as const)
        out.push(
          new ScatterplotLayer({
            id: `sure-${share}-${this.#level}`,
            data: {
              length: this.dots.count,
              attributes: { getPosition: { value: this.dots.xy, size: 2 }, getRadius: { value: this.dots.radiusM, size: 1 } },
            },
            radiusUnits: "common",
            radiusScale: share,
            opacity: weight,
            getFillColor: token("accent", alpha),
            updateTriggers: { getFillColor: theme.value },
          }),
        );
    const chosen = this.#chosenDot();
    if (chosen) {
      const mark = (id: string, radius: number, units: "common" | "pixels", fill: number, line: number, width: number) =>
        new ScatterplotLayer<Point>({
          id: `chosen-${id}`,
          data: [chosen.point],
          getPosition: (p: Point) => p as never,
          getRadius: radius,
          radiusUnits: units,
          filled: fill > 0,
          stroked: true,
          getFillColor: token("accent", fill),
          getLineColor: token("accent", line),
          getLineWidth: width,
          lineWidthUnits: "pixels",
          updateTriggers: { getRadius: radius, getFillColor: theme.value, getLineColor: theme.value },
        });
      if (chosen.radiusM > 0) out.push(mark("disc", chosen.radiusM, "common", 44, 150, 1));
      out.push(mark("ring", dotRadius(px) + 3, "pixels", 0, 255, 2));
    }
    return out;
  }

  #meLayers(me: Me, px: number): Layer[] {
    const out: Layer[] = [];
    if (me.region)
      out.push(
        new SolidPolygonLayer<Polygon>({
          id: "me-region",
          data: [[me.region]],
          getPolygon: (p: Polygon) => p as never,
          getFillColor: token("me", 34),
          updateTriggers: { getFillColor: theme.value },
        }),
        new PathLayer<Point[]>({
          id: "me-region-edge",
          data: [closed(me.region)],
          getPath: (p: Point[]) => p as never,
          getColor: token("me", 110),
          getWidth: 1,
          widthUnits: "pixels",
          updateTriggers: { getColor: theme.value },
        }),
      );
    else
      out.push(
        new ScatterplotLayer<Point>({
          id: "me-radius",
          data: [me.point],
          getPosition: (p: Point) => p as never,
          getRadius: me.radiusM,
          radiusUnits: "common",
          stroked: true,
          getFillColor: token("me", 34),
          getLineColor: token("me", 110),
          getLineWidth: 1,
          lineWidthUnits: "pixels",
          updateTriggers: { getRadius: me.radiusM, getFillColor: theme.value, getLineColor: theme.value },
        }),
      );
    if (me.target) {
      out.push(
        new LineLayer<[Point, Point]>({
          id: "me-way",
          data: [[me.point, me.target]],
          getSourcePosition: (s: [Point, Point]) => s[0] as never,
          getTargetPosition: (s: [Point, Point]) => s[1] as never,
          getColor: token("me", 150),
          getWidth: 2,
          widthUnits: "pixels",
        }),
        new ScatterplotLayer<Point>({
          id: "me-target",
          data: [me.target],
          getPosition: (p: Point) => p as never,
          getRadius: 5,
          radiusUnits: "pixels",
          filled: false,
          stroked: true,
          getLineColor: token("me"),
          getLineWidth: 2,
          lineWidthUnits: "pixels",
        }),
      );
    }
    if (me.headingRad !== undefined) {
      const at = (angle: number, r: number): Point => [me.point[0] + (Math.cos(angle) * r) / px, me.point[1] + (Math.sin(angle) * r) / px];
      const h = me.headingRad;
      const cone: Point[] = [me.point, at(h - 0.5, 26), at(h - 0.25, 29), at(h, 30), at(h + 0.25, 29), at(h + 0.5, 26)];
      out.push(
        new SolidPolygonLayer<Polygon>({
          id: "me-heading",
          data: [[cone]],
          getPolygon: (p: Polygon) => p as never,
          getFillColor: token("me", 90),
          updateTriggers: { getFillColor: theme.value },
        }),
      );
    }
    out.push(
      new ScatterplotLayer<Point>({
        id: "me",
        data: [me.point],
        getPosition: (p: Point) => p as never,
        getRadius: 8,
        radiusUnits: "pixels",
        stroked: true,
        getFillColor: token("me"),
        getLineColor: [255, 255, 255, 255],
        getLineWidth: 2.5,
        lineWidthUnits: "pixels",
        updateTriggers: { getFillColor: theme.value },
      }),
    );
    return out;
  }
}

function picture(grid: Grid, place?: (value: number) => number, full?: number): Picture {
  const scale = Math.max(1, Math.min(4, Math.floor(Math.sqrt(FIELD_PX / (grid.cols * grid.rows)))));
  const { width, height, rgba } = paintField(grid, RAMPS[theme.value], scale, place, full);
  return { image: new ImageData(rgba, width, height), bounds: [grid.x0, grid.y0, grid.x0 + grid.cols * grid.cell, grid.y0 + grid.rows * grid.cell] };
}

function bitmap(id: string, { image, bounds }: Picture, opacity: number): Layer {
  return new BitmapLayer({ id, image: image as never, bounds, opacity, textureParameters: { minFilter: "linear", magFilter: "linear" } });
}

const controls = (doubleClickZoom: boolean) => ({
  dragRotate: false,
  doubleClickZoom,
  keyboard: false,
  inertia: reducedMotion() ? 0 : 200,
  scrollZoom: { speed: 0.01, smooth: false },
});
