/** What panels draw over the plan: areas, lines, points and names, each on a level, in colours of the theme. Pure but for the layers' own classes. */
import type { Layer } from "@deck.gl/core";
import { PathLayer, ScatterplotLayer, SolidPolygonLayer } from "@deck.gl/layers";
import { theme, token } from "../ui/theme";
import type { Point, Polygon } from "../venue";
import { closed } from "./plan";

/** `colour`: a token of ui/tokens.css. */
export type Figure =
  | { kind: "area"; level: number; polygon: Polygon; colour: string; alpha: number; edgePx: number }
  | { kind: "line"; level: number; points: Point[]; colour: string; widthPx: number; alpha?: number }
  | { kind: "point"; level: number; point: Point; colour: string; radiusPx: number; hollow?: boolean }
  | { kind: "name"; level: number; point: Point; text: string; belowPx?: number };

type Of<Kind extends Figure["kind"]> = Extract<Figure, { kind: Kind }>;

/** The layers of one panel's figures on a level, areas first. */
export function figureLayers(owner: string, figures: readonly Figure[], level: number): Layer[] {
  const of = <Kind extends Figure["kind"]>(kind: Kind) => figures.filter((f): f is Of<Kind> => f.kind === kind && f.level === level);
  const [areas, lines, points] = [of("area"), of("line"), of("point")];
  const triggers = [theme.value, figures];
  const out: Layer[] = [];
  if (areas.length > 0)
    out.push(
      new SolidPolygonLayer<Of<"area">>({
        id: `${owner}-areas-${level}`,
        data: areas,
        getPolygon: (f: Of<"area">) => f.polygon as never,
        getFillColor: (f: Of<"area">) => token(f.colour, f.alpha),
        updateTriggers: { getFillColor: triggers },
      }),
      new PathLayer<Of<"area">>({
        id: `${owner}-edges-${level}`,
        data: areas,
        getPath: (f: Of<"area">) => closed(f.polygon[0] ?? []) as never,
        getColor: (f: Of<"area">) => token(f.colour),
        getWidth: (f: Of<"area">) => f.edgePx,
        widthUnits: "pixels",
        jointRounded: true,
        updateTriggers: { getColor: triggers, getWidth: triggers },
      }),
    );
  if (lines.length > 0)
    out.push(
      new PathLayer<Of<"line">>({
        id: `${owner}-lines-${level}`,
        data: lines,
        getPath: (f: Of<"line">) => f.points as never,
        getColor: (f: Of<"line">) => token(f.colour, f.alpha ?? 255),
        getWidth: (f: Of<"line">) => f.widthPx,
        widthUnits: "pixels",
        jointRounded: true,
        capRounded: true,
        updateTriggers: { getColor: triggers, getWidth: triggers },
      }),
    );
  if (points.length > 0)
    out.push(
      new ScatterplotLayer<Of<"point">>({
        id: `${owner}-points-${level}`,
        data: points,
        getPosition: (f: Of<"point">) => f.point as never,
        getRadius: (f: Of<"point">) => f.radiusPx,
        radiusUnits: "pixels",
        stroked: true,
        getFillColor: (f: Of<"point">) => (f.hollow ? token("surface", 200) : token(f.colour)),
        getLineColor: (f: Of<"point">) => (f.hollow ? token(f.colour) : token("surface")),
        getLineWidth: 2.5,
        lineWidthUnits: "pixels",
        updateTriggers: { getFillColor: triggers, getLineColor: triggers, getRadius: triggers },
      }),
    );
  return out;
}
