"""Frames of phones into columns: each reading under its transmitter's key, steps as a path, fixes in the venue's frame; and answers into frames."""

from __future__ import annotations

import numpy as np
import pytest

from gateway import frames as f
from gateway.observe import QR_SD_M, columns_of, told_of
from gateway.venues import VenueFacts
from spatial.frames import Frame
from spatial.positioning.observed import FAST, LEVEL, Answers, Observed, State, transmitter_key
from spatial.venue import Origin

ORIGIN = Origin(lat_deg=48.2, lon_deg=16.37, bearing_deg=30.0)
FACTS = VenueFacts("demo", "", "parkside", "Parkside", "mall", 2, {}, frozenset(), ORIGIN, {"north": (1, 20.0, 3.0)})


def test_readings_steps_and_fixes_become_columns() -> None:
    lat, lon, _ = Frame(ORIGIN).to_wgs84(12.0, 7.0)
    frames = [
        f.Observe(
            seq=1, venue="parkside", at_ms=1500, ble=(("Beacon", -70.0),), wifi=(("9A:40:a9:a1:86:02", -61.0),), steps=((90.0, 0.7), (0.0, 0.5))
        ),
        f.Observe(seq=2, venue="parkside", at_ms=2000, steps=(), gnss=f.Gnss(lat=float(lat), lon=float(lon), accuracy_m=1.0)),
        f.Observe(seq=3, venue="parkside", at_ms=2500, ranges=(f.Range(x=1.0, y=2.0, range_m=3.0, sd_m=0.2, level=0),), location="north"),
    ]
    columns = columns_of([(7 + i, frame, FACTS) for i, frame in enumerate(frames)])
    assert columns.subject.tolist() == [7, 8, 9]
    assert columns.at_s.tolist() == [1.5, 2.0, 2.5]
    assert columns.first.tolist() == [0, 2, 2, 2]
    assert columns.key.tolist() == [transmitter_key("w:40:a9:a1:86:0"), transmitter_key("b:beacon")]
    assert columns.rssi_dbm.tolist() == [-61.0, -70.0]
    assert columns.steady.tolist() == [1, 1, 0]
    assert (columns.east_m[0], columns.north_m[0]) == pytest.approx((0.7, 0.5))
    assert columns.fix_first.tolist() == [0, 0, 1, 3]
    np.testing.assert_allclose(columns.fix, [[12.0, 7.0, 0.0, 3.0, -1.0], [1.0, 2.0, 3.0, 0.2, 0.0], [20.0, 3.0, 0.0, QR_SD_M, 1.0]], atol=1e-3)
    assert len(Observed.unpack(*columns.pack())) == 3


@pytest.mark.parametrize(
    ("state", "told"),
    [(State.LOCATED, True), (State.SETTLING, False), (State.SILENT, False), (State.OUTSIDE, False), (State.LATE, False), (State.REPEATED, True)],
)
def test_a_dot_is_told_only_when_there_is_one(state: State, told: bool) -> None:
    one = np.ones(1, np.float32)
    answers = Answers(
        np.array([state], np.uint8), np.ones(1, np.uint8), np.array([[3.0, 4.0]], np.float32), np.array([[1.0, 0.5, 2.0]], np.float32), one * 5,
        np.array([[0.25, 0.75]], np.float32), np.array([FAST | LEVEL], np.uint8),
    )  # fmt: skip
    answer = told_of(f.Observe(seq=3, venue="parkside", at_ms=9), answers, 0, 2)
    assert isinstance(answer, f.Located)
    assert (answer.state, answer.at_ms, answer.map) == (state.name.lower(), 9, 2)
    assert (answer.x, answer.y, answer.radius_m, answer.level) == ((3.0, 4.0, 5.0, 1) if told else (None,) * 4)
    assert answer.flags == (("fast", "level") if state == State.LOCATED else ())
    assert (answer.message is None) == (state not in (State.OUTSIDE, State.SILENT))


def test_a_full_filter_is_a_limit_that_passes() -> None:
    nothing = np.full((1, 3), np.nan, np.float32)
    answers = Answers(
        np.array([State.FULL], np.uint8), np.zeros(1, np.uint8), nothing[:, :2], nothing, nothing[:, 0], nothing[:, :2], np.zeros(1, np.uint8)
    )
    answer = told_of(f.Observe(seq=3, venue="parkside", at_ms=9), answers, 0, 2)
    assert isinstance(answer, f.Error)
    assert (answer.code, answer.retryable, answer.seq) == ("limit", True, 3)
