/** The map's place in the page: loads the scene's chunk, shows a sentence where WebGL is missing, north arrow and scale bar. */
import { useEffect, useRef, useState } from "preact/hooks";
import { count } from "../format";
import { s } from "../strings";
import { scaleBar } from "./camera";
import type { MapScene, SceneOptions } from "./scene";

type Props = SceneOptions & {
  label: string;
  onScene: (scene: MapScene | undefined) => void;
  corner?: "operator" | "shopper";
  onKey?: (event: KeyboardEvent) => boolean;
};

export function MapView(props: Props) {
  const root = useRef<HTMLDivElement>(null);
  const latest = useRef(props);
  latest.current = props;
  const scene = useRef<MapScene | undefined>(undefined);
  const [failed, setFailed] = useState<string>();
  const [pxPerM, setPxPerM] = useState(0);

  useEffect(() => {
    let gone = false;
    import("./scene")
      .then(({ MapScene }) => {
        if (gone || root.current === null) return;
        const p = latest.current;
        scene.current = new MapScene(root.current, {
          ...p,
          onPick: (spot, point) => latest.current.onPick(spot, point),
          onScreen: (n, w) => latest.current.onScreen?.(n, w),
          onCamera: (camera) => {
            setPxPerM(2 ** camera.zoom);
            latest.current.onCamera(camera);
          },
        });
        setPxPerM(2 ** scene.current.camera.zoom);
        p.onScene(scene.current);
      })
      .catch((error: unknown) => setFailed(error instanceof Error ? error.message : String(error)));
    return () => {
      gone = true;
      scene.current?.destroy();
      scene.current = undefined;
      latest.current.onScene(undefined);
    };
  }, [props.index.doc.id]);
  useEffect(() => scene.current?.setIndex(props.index), [props.index]);

  const onKeyDown = (event: KeyboardEvent) => {
    const map = scene.current;
    if (map === undefined || props.onKey?.(event)) return;
    const step = 80;
    const moves: Record<string, () => void> = {
      ArrowLeft: () => map.pan(-step, 0),
      ArrowRight: () => map.pan(step, 0),
      ArrowUp: () => map.pan(0, -step),
      ArrowDown: () => map.pan(0, step),
      "+": () => map.zoomBy(0.5),
      "=": () => map.zoomBy(0.5),
      "-": () => map.zoomBy(-0.5),
      "0": () => map.fit(),
    };
    const move = moves[event.key];
    if (move) {
      event.preventDefault();
      move();
    }
  };
  const bearing = props.index.doc.origin.bearing_deg ?? 0;
  const bar = pxPerM > 0 ? scaleBar(pxPerM, 120) : undefined;
  return (
    <div class="map">
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: the map is panned and zoomed with the keyboard */}
      <div class="map-root" ref={root} role="application" aria-label={props.label} tabIndex={0} onKeyDown={onKeyDown} />
      {failed && (
        <div class="map-failed" role="alert">
          <strong>{s.map.failed}</strong>
          <span>{s.map.failedNext}</span>
          <small>{failed}</small>
        </div>
      )}
      <div class={`map-corner map-corner-${props.corner ?? "operator"}`}>
        <div class="map-zoom" role="group" aria-label={s.map.zoom}>
          <button type="button" aria-label={s.map.zoomIn} onClick={() => scene.current?.zoomBy(0.6)}>
            +
          </button>
          <button type="button" aria-label={s.map.zoomOut} onClick={() => scene.current?.zoomBy(-0.6)}>
            −
          </button>
          <button type="button" aria-label={s.map.fit} title={s.map.fit} onClick={() => scene.current?.fit()}>
            <svg viewBox="0 0 16 16" aria-hidden="true">
              <path
                d="M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10"
                fill="none"
                stroke="currentColor"
                stroke-width="1.5"
                stroke-linecap="round"
                stroke-linejoin="round"
              />
            </svg>
          </button>
        </div>
        <div class="map-north" role="img" aria-label={s.map.north} style={{ transform: `rotate(${bearing}deg)` }}>
          <svg viewBox="0 0 24 32" aria-hidden="true">
            <path d="M12 2 L18 18 L12 14.5 L6 18 Z" fill="currentColor" />
            <text x="12" y="30" text-anchor="middle" font-size="10" font-weight="650" fill="currentColor">
              N
            </text>
          </svg>
        </div>
        {bar && (
          <div class="map-scale" role="img" aria-label={s.map.scale(count(bar.metres))}>
            <span style={{ width: `${bar.px}px` }} />
            <b>{count(bar.metres)} m</b>
          </div>
        )}
      </div>
    </div>
  );
}
