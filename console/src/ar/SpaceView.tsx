/** The space's place in the page: loads its chunk, turns keys into moves, and says plainly where it cannot be drawn. */
import { useEffect, useRef, useState } from "preact/hooks";
import { s } from "../strings";
import type { VenueIndex } from "../venue";
import type { ArScene, Picked, Shown } from "./ArScene";

type Props = {
  index: VenueIndex;
  padding: { left: number; right: number; top: number };
  shown: Shown;
  label: string;
  onScene: (scene: ArScene | undefined) => void;
  onPick: (picked: Picked) => void;
};

export function SpaceView(props: Props) {
  const root = useRef<HTMLDivElement>(null);
  const latest = useRef(props);
  latest.current = props;
  const scene = useRef<ArScene | undefined>(undefined);
  const [failed, setFailed] = useState<string>();

  useEffect(() => {
    let gone = false;
    if (document.createElement("canvas").getContext("webgl2") === null) {
      setFailed("");
      return;
    }
    import("./ArScene")
      .then(({ ArScene }) => {
        if (gone || root.current === null) return;
        const { index, padding, shown } = latest.current;
        scene.current = new ArScene(root.current, { index, padding, shown, onPick: (picked) => latest.current.onPick(picked) });
        latest.current.onScene(scene.current);
      })
      .catch((error: unknown) => setFailed(error instanceof Error ? error.message : String(error)));
    return () => {
      gone = true;
      scene.current?.destroy();
      scene.current = undefined;
      latest.current.onScene(undefined);
    };
  }, [props.index]);

  const onKeyDown = (event: KeyboardEvent) => {
    const space = scene.current;
    if (space === undefined) return;
    const arrows: Record<string, [number, number]> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const arrow = arrows[event.key];
    if (arrow && event.shiftKey) space.pan(80 * arrow[0], 80 * arrow[1]);
    else if (arrow) space.turnBy(15 * arrow[0], -10 * arrow[1]);
    else if (event.key === "+" || event.key === "=") space.zoomBy(0.5);
    else if (event.key === "-") space.zoomBy(-0.5);
    else if (event.key === "0") space.fit();
    else return;
    event.preventDefault();
  };
  return (
    <div class="map">
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: the space is turned and moved with the keyboard */}
      <div class="map-root" ref={root} role="application" aria-label={props.label} tabIndex={0} onKeyDown={onKeyDown} />
      {failed !== undefined && (
        <div class="map-failed" role="alert">
          <strong>{s.ar.flat}</strong>
          <span>{s.map.failedNext}</span>
          <small>{failed}</small>
        </div>
      )}
      <div class="map-corner map-corner-operator">
        <div class="map-zoom" role="group" aria-label={s.map.zoom}>
          <button type="button" aria-label={s.map.zoomIn} onClick={() => scene.current?.zoomBy(0.6)}>
            +
          </button>
          <button type="button" aria-label={s.map.zoomOut} onClick={() => scene.current?.zoomBy(-0.6)}>
            −
          </button>
          <button type="button" aria-label={s.map.fit} title={s.map.fit} onClick={() => scene.current?.fit()}>
            ⤢
          </button>
        </div>
      </div>
    </div>
  );
}
