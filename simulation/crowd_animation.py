"""A run as one page that plays it: canvas and script in it, nothing is loaded from elsewhere. Owns the page; it measures nothing and writes no file.

Places travel as 16-bit integers, base64, in centimetres from the corner where the ground is small enough, else in so many more as fit.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import numpy as np
import shapely

from esplanade.core.errors import LimitExceeded
from simulation.crowd_run import CrowdOutcome

MAX_ROWS: Final = 3_000_000
MOST_FRAMES: Final = 2_000

_PAGE: Final = """<!doctype html>
<meta charset="utf-8"><title>{title}</title>
<style>body{{margin:0;font:14px system-ui;background:#f6f4ef;color:#2b3038}}main{{padding:12px;max-width:1200px;margin:auto}}canvas{{max-width:100%;background:#fff;border:1px solid #cfcabd}}
.bar{{display:flex;gap:12px;align-items:center;margin:8px 0}}input[type=range]{{flex:1}}</style>
<main><h1 style="font-size:18px;margin:4px 0">{title}</h1>
<div class="bar"><button id="play">Play</button><input id="at" type="range" min="0" value="0" aria-label="time"><output id="time"></output>
<label>Level <select id="level"></select></label><label>Speed <select id="pace" aria-label="times real time"><option value="1">1×<option value="5" selected>5×<option value="20">20×</select></label></div>
<canvas id="ground"></canvas>
<div class="bar"><span>stands</span><span style="width:180px;height:10px;background:linear-gradient(90deg,hsl(0 70% 40%),hsl(60 70% 40%),hsl(120 70% 40%))"></span><span>walks at 1.3 m/s or faster</span><span id="bar" style="border-bottom:3px solid #2b3038;text-align:center"></span></div></main>
<script>
const data = {data};
const bytes = atob(data.rows), raw = new Uint8Array(bytes.length);
for (let i = 0; i < bytes.length; i++) raw[i] = bytes.charCodeAt(i);
const rows = new Uint16Array(raw.buffer), $ = id => document.getElementById(id), ctx = $("ground").getContext("2d");
data.levels.forEach((_, k) => $("level").add(new Option(k, k)));
$("level").value = data.first; $("at").max = data.start.length - 2;
const [x0, y0, x1, y1] = data.bounds, size = Math.min(1180 / (x1 - x0), 680 / (y1 - y0));
const wide = $("ground").width = Math.max(300, Math.ceil(20 + (x1 - x0) * size)), tall = $("ground").height = Math.ceil(20 + (y1 - y0) * size);
$("ground").style.width = wide + "px";
const px = x => 10 + (x - x0) * size, py = y => tall - 10 - (y - y0) * size;
const metres = [1, 2, 5, 10, 20, 50, 100, 200, 500].find(m => m * size >= 60) || 1000;
$("bar").textContent = metres + " m"; $("bar").style.width = metres * size / wide * $("ground").clientWidth + "px";
const colour = v => "hsl(" + Math.round(120 * Math.min(1, v / 1.3)) + " 70% 40%)";
let playing = false, at = 0, before = 0;
function draw() {{
  const frame = Math.floor(at), level = +$("level").value;
  ctx.clearRect(0, 0, wide, tall);
  ctx.fillStyle = "#ece8dd"; ctx.strokeStyle = "#2b3038"; ctx.beginPath();
  for (const ring of data.levels[level]) {{ ring.forEach(([x, y], i) => i ? ctx.lineTo(px(x), py(y)) : ctx.moveTo(px(x), py(y))); ctx.closePath(); }}
  ctx.fill("evenodd"); ctx.stroke();
  let here = 0;
  for (let i = data.start[frame]; i < data.start[frame + 1]; i++) {{
    if (rows[4 * i + 2] !== level) continue;
    here++;
    ctx.fillStyle = colour(rows[4 * i + 3] / 100);
    ctx.beginPath(); ctx.arc(px(x0 + rows[4 * i] * data.unit), py(y0 + rows[4 * i + 1] * data.unit), Math.max(1.5, 0.2 * size), 0, 7); ctx.fill();
  }}
  $("at").value = frame;
  $("time").textContent = data.times[frame].toFixed(1) + " s, " + here + " people";
}}
function tick(now) {{
  if (playing) {{ at += (now - before) / 1000 * data.rate * +$("pace").value; if (at >= data.start.length - 1) {{ at = data.start.length - 2; playing = false; }} draw(); }}
  before = now; requestAnimationFrame(tick);
}}
$("play").onclick = () => {{ playing = !playing; $("play").textContent = playing ? "Pause" : "Play"; if (at >= data.start.length - 2) at = 0; }};
$("at").oninput = () => {{ at = +$("at").value; draw(); }};
$("level").onchange = draw;
draw(); requestAnimationFrame(tick);
</script>
"""


def page(outcome: CrowdOutcome, *, title: str) -> str:
    """HTML that plays the trajectories of a run, at most 2,000 frames of it: people by level, coloured from red (standing) to green (1.3 m/s and more).

    Raises LimitExceeded above 3 million places; a larger record_s in the scenario brings fewer.
    """
    recording, levels = outcome.recording, outcome.study.setting.levels
    frames = int(recording.frame.max(initial=0)) + 1
    every = -(-frames // MOST_FRAMES)
    keep = recording.frame % every == 0
    if int(keep.sum()) > MAX_ROWS:
        raise LimitExceeded(f"animation: {int(keep.sum())} places; at most {MAX_ROWS}, record more seldom (record_s)")
    bounds = np.array([ground.bounds for ground in levels])
    x0, y0 = (float(low) for low in bounds[:, :2].min(axis=0))
    x1, y1 = (float(high) for high in bounds[:, 2:].max(axis=0))
    unit = max(0.01, max(x1 - x0, y1 - y0) / 65_000)
    speed = np.zeros(len(recording.person))
    order = np.lexsort((recording.frame, recording.person))
    who, frame = recording.person[order], recording.frame[order]
    same = (who[1:] == who[:-1]) & (frame[1:] == frame[:-1] + 1)
    moved = np.hypot(np.diff(recording.x_m[order]), np.diff(recording.y_m[order])) * recording.rate_hz
    speed[order[1:][same]] = moved[same]
    columns = np.column_stack([(recording.x_m - x0) / unit, (recording.y_m - y0) / unit, recording.level, 100 * speed])
    rows = np.clip(np.round(columns[keep]), 0, 65_535).astype("<u2")
    kept = recording.frame[keep] // every
    data: dict[str, Any] = {
        "bounds": [x0, y0, x1, y1], "unit": unit, "rate": recording.rate_hz / every, "first": int(recording.level.min(initial=255)) if len(kept) else 0,
        "levels": [[np.round(shapely.get_coordinates(ring), 2).tolist() for part in shapely.get_parts(g) for ring in [part.exterior, *part.interiors]] for g in levels],
        "start": np.searchsorted(kept, np.arange(-(-frames // every) + 1)).tolist(),
        "times": (np.arange(-(-frames // every)) * every / recording.rate_hz).tolist(), "rows": base64.b64encode(rows.tobytes()).decode(),
    }  # fmt: skip
    return _PAGE.format(title=title.replace("&", "&amp;").replace("<", "&lt;"), data=json.dumps(data).replace("</", "<\\/"))
