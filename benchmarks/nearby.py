"""Everyone within 50 m, and the nearest 20, among 100,000 people on 32 levels of eight venues: CrowdIndex against Redis GEOSEARCH.

20,000 questions, each a person's own place, with about 50 hits. Redis (the embedded server, a Unix socket) holds a key a level; its questions are encoded
before the clock starts, sent in pipelines of 500, and its answers are read as bytes and decoded after the clock stops, so that its client costs next to
nothing. Both on one core each. Plane metres become degrees of Redis's own sphere near the equator; it stores 52 bits, a place to 0.4 m. So answers must
be equal but for people within 1 m of the circle (within) or of the distance of the twentieth (nearest).
"""

from __future__ import annotations

import json
import math
import socket
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.harness import compare
from esplanade.storage.embedded import start_redis
from spatial.index import CrowdIndex, Hits, Sheets

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

VENUES, LEVELS = 8, 4
QUESTIONS: Final = 20_000
RADIUS_M: Final = 50.0
HITS: Final = 50
NEAREST: Final = 20
WIDE_M: Final = 60.0
"""Redis wants a radius for the nearest too: this one holds 20 for nearly all; the rest are asked again, eight times wider."""

REDIS_SPHERE_M: Final = 6372797.560856
PIPELINE: Final = 500
NEAR_M: Final = 1.0


class _Redis:
    """A bare client: bytes out, bytes back, no decoding."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._marks = 0

    def run(self, batches: list[bytes]) -> list[bytes]:
        answers = []
        for batch in batches:
            self._marks += 1
            mark = f"mark-{self._marks}-".encode()
            end = b"$%d\r\n%s\r\n" % (len(mark), mark)
            self._socket.sendall(batch + _command("ECHO", mark))
            parts = [b""]
            while not (parts[-1].endswith(end) or (len(parts[-1]) < len(end) and b"".join(parts[-2:]).endswith(end))):
                parts.append(self._socket.recv(1 << 20))
            answers.append(b"".join(parts)[: -len(end)])
        return answers

    def close(self) -> None:
        self._socket.close()


def _command(*words: str | bytes) -> bytes:
    encoded = [word if isinstance(word, bytes) else word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def _degrees(metres: float) -> str:
    return f"{math.degrees(metres / REDIS_SPHERE_M):.9f}"


def _batches(commands: list[bytes]) -> list[bytes]:
    return [b"".join(commands[i : i + PIPELINE]) for i in range(0, len(commands), PIPELINE)]


def _decode(answers: list[bytes]) -> list[I8]:
    """Members of each reply (`*n`, then n bulk strings)."""
    found: list[I8] = []
    for answer in answers:
        lines = answer.split(b"\r\n")
        at = 0
        while at < len(lines) - 1:
            count = int(lines[at][1:])
            found.append(np.array(lines[at + 2 : at + 2 + 2 * count : 2], dtype=np.int64))
            at += 1 + 2 * count
    return found


def run(*, n: int = 100_000, repeats: int = 5) -> None:
    rng = np.random.default_rng(11)
    sheets = Sheets([(f"venue-{v}", LEVELS) for v in range(VENUES)])
    side = math.sqrt(n / len(sheets) * math.pi * RADIUS_M**2 / HITS)
    sheet = rng.integers(0, len(sheets), n).astype(np.int32)
    xy = rng.uniform(0, side, (n, 2)).astype(np.float32).astype(np.float64)
    x, y = np.ascontiguousarray(xy[:, 0]), np.ascontiguousarray(xy[:, 1])
    asked = rng.choice(n, min(QUESTIONS, n), replace=False)
    q_sheet, qx, qy = sheet[asked], x[asked], y[asked]
    ids = np.arange(n)

    def build() -> CrowdIndex:
        return CrowdIndex.build(sheets, ids, sheet, x, y)

    index = build()
    took: dict[str, list[float]] = {"build": []}
    answer: dict[str, Hits] = {}

    def ours_within() -> float:
        began = time.perf_counter()
        build()
        took["build"].append(time.perf_counter() - began)
        began = time.perf_counter()
        answer["within"] = index.within(q_sheet, qx, qy, RADIUS_M)
        return len(asked) / (time.perf_counter() - began)

    def ours_nearest() -> float:
        began = time.perf_counter()
        answer["nearest"] = index.nearest(q_sheet, qx, qy, NEAREST)
        return len(asked) / (time.perf_counter() - began)

    with tempfile.TemporaryDirectory(prefix="esp-") as folder:
        server = start_redis(Path(folder))
        try:
            client = _Redis(server.url.removeprefix("unix://").split("?")[0])
            adds = [_command("GEOADD", f"s{s}", _degrees(a), _degrees(b), str(i)) for i, (s, a, b) in enumerate(zip(sheet, x, y, strict=True))]
            began = time.perf_counter()
            client.run(_batches(adds))
            redis_build_s = time.perf_counter() - began

            def search(row: int, radius: float, *more: str) -> bytes:
                place = ("FROMLONLAT", _degrees(x[row]), _degrees(y[row]), "BYRADIUS", f"{radius:.6f}", "m")
                return _command("GEOSEARCH", f"s{sheet[row]}", *place, *more)

            plain = _batches([search(row, RADIUS_M) for row in asked])
            counted = _batches([search(row, WIDE_M, "ASC", "COUNT", str(NEAREST)) for row in asked])
            replies: dict[str, list[I8]] = {}

            def peer_within() -> float:
                began = time.perf_counter()
                raw = client.run(plain)
                rate = len(asked) / (time.perf_counter() - began)
                replies["within"] = _decode(raw)
                return rate

            def peer_nearest() -> float:
                began = time.perf_counter()
                raw = client.run(counted)
                rate = len(asked) / (time.perf_counter() - began)
                found = _decode(raw)
                short = [i for i, hits in enumerate(found) if len(hits) < NEAREST]
                again = _decode(client.run(_batches([search(asked[i], 8 * WIDE_M, "ASC", "COUNT", str(NEAREST)) for i in short])))
                for i, hits in zip(short, again, strict=True):
                    found[i] = hits
                replies["nearest"] = found
                return rate

            near = compare("nearest_20", n=n, ours=ours_nearest, peer=peer_nearest, unit="questions/s", higher_is_better=True, repeats=repeats)
            checked_nearest = _check(answer["nearest"], replies["nearest"], x, y, asked, None)
            all_within = compare("nearby", n=n, ours=ours_within, peer=peer_within, unit="questions/s", higher_is_better=True, repeats=repeats)
            checked = _check(answer["within"], replies["within"], x, y, asked, RADIUS_M)
            client.close()
        finally:
            server.stop()
    more = {
        "questions": len(asked), "hits_a_question": round(len(answer["within"].row) / len(asked), 1), "differ_within_1_m": checked,
        "nearest_20": near, "nearest_20_differ_within_1_m": checked_nearest, "build_ms": round(float(np.median(took["build"])) * 1e3, 2),
        "redis_geoadd_s": round(redis_build_s, 2),
    }  # fmt: skip
    print(json.dumps(all_within | more))


def _check(ours: Hits, theirs: list[I8], x: F8, y: F8, asked: I8, radius: float | None) -> int:
    """How many people only one of them found. Raises AssertionError for one who is not within NEAR_M of the limit (the radius, or the distance of the last)."""
    differ = 0
    for i, (row, other) in enumerate(zip(asked, theirs, strict=True)):
        odd = np.setxor1d(ours.of(i), other)
        if len(odd):
            limit = radius if radius is not None else float(ours.distance_m[ours.offset[i] : ours.offset[i + 1]].max())
            off = np.abs(np.hypot(x[odd] - x[row], y[odd] - y[row]) - limit)
            if off.max() > NEAR_M:
                raise AssertionError(f"question {i}: {odd[off.argmax()]} is {off.max():.2f} m from the limit and only one of the two found them")
            differ += len(odd)
    return differ
