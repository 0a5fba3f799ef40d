"""The last line of `benchmarks crowd` says of every bar that was measured whether it is met."""

from __future__ import annotations

import pytest

from benchmarks.crowd import bars, run
from esplanade.core.errors import InvalidInput


def test_bars_are_met_from_their_figure_on_and_what_was_not_measured_is_left_out() -> None:
    found = bars(
        {
            "rooms_4": {"ratio": 10.0, "overlap_m": 0.0101},
            "rooms_2": {"ours": 3.0},
            "festival": {"real_time": 0.99, "peak_mib": 1024, "overlap_m": -0.04},
            "crosscheck": {"off": -0.06, "off_either_way": 0.06},
            "picture": {"ready_s": 5.1},
        }
    )
    assert {name: bar["met"] for name, bar in found.items()} == {
        "times_jupedsim_at_4_per_m2": True,
        "million_real_time": False,
        "million_peak_mib": True,
        "first_picture_s": False,
        "mean_egress_off_jupedsim": False,
        "overlap_m_rooms_4": False,
        "overlap_m_festival": True,
    }
    assert found["million_real_time"] == {"figure": 0.99, "at_least": 1.0, "met": False}


def test_a_part_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"part 'stadium'; there are rooms_0\.5, rooms_2, rooms_4, crosscheck, million, mall, picture"):
        run(part="stadium")
