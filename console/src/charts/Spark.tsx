/** One line over time: the present value large with its unit and trend, the line quiet beneath. uPlot draws it. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Series } from "../operator/model";
import { css, theme } from "../ui/theme";

type Props = { label: string; unit: string; series: Series; show: (n: number) => string };

/** Change against the mean of the minute before, as an arrow; nothing where it is within five per cent. */
export function trendOf(v: readonly number[]): "up" | "down" | undefined {
  if (v.length < 12) return undefined;
  const recent = v.slice(-5);
  const before = v.slice(-65, -5);
  const mean = (a: readonly number[]) => a.reduce((x, y) => x + y, 0) / a.length;
  const [now, then] = [mean(recent), mean(before)];
  const scale = Math.max(Math.abs(now), Math.abs(then), 1e-9);
  return Math.abs(now - then) / scale < 0.05 ? undefined : now > then ? "up" : "down";
}

export function Spark({ label, unit, series, show }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  useEffect(() => {
    const root = box.current!;
    const line = css("accent");
    plot.current = new uPlot(
      {
        width: Math.max(60, root.clientWidth),
        height: Math.max(24, root.clientHeight),
        padding: [3, 0, 2, 0],
        legend: { show: false },
        cursor: { show: false },
        axes: [{ show: false }, { show: false }],
        scales: { x: { time: false, range: (_u, min, max) => [Math.max(max - 300, Math.min(min, max - 30)), max] }, y: { range: (_u, min, max) => [Math.min(0, min), Math.max(max * 1.1, 1e-6)] } },
        series: [{}, { stroke: line, width: 1.5, fill: `${line}22`, points: { show: false } }],
      },
      [[], []],
      root,
    );
    const resize = new ResizeObserver(() => plot.current?.setSize({ width: Math.max(60, root.clientWidth), height: Math.max(24, root.clientHeight) }));
    resize.observe(root);
    return () => {
      resize.disconnect();
      plot.current?.destroy();
    };
  }, [theme.value]);
  useEffect(() => plot.current?.setData([series.t, series.v]), [series, theme.value]);
  const last = series.v.at(-1);
  const trend = trendOf(series.v);
  return (
    <figure class="spark" data-spark={label}>
      <figcaption>{label}</figcaption>
      <output>
        <b>{last === undefined ? "–" : show(last)}</b>
        <span>{unit}</span>
        {trend && (
          <i class="trend" role="img" aria-label={trend === "up" ? "rising" : "falling"}>
            {trend === "up" ? "↗" : "↘"}
          </i>
        )}
      </output>
      <div class="spark-line" ref={box} aria-hidden="true" />
    </figure>
  );
}
