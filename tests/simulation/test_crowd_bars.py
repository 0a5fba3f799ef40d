"""The last line of `benchmarks crowd` says of every bar that was measured whether it is met."""

from __future__ import annotations

from benchmarks.crowd import bars


def test_bars_are_met_from_their_figure_on_and_what_was_not_measured_is_left_out() -> None:
    found = bars(
        {
            "rooms_4": {"ratio": 10.0, "overlap_m": 0.0101},
            "rooms_2": {"ours": 3.0},
            "festival": {"real_time": 0.99, "peak_mib": 1024, "overlap_m": -0.04},
            "crosscheck": {"off": -0.06, "off_either_way": 0.06},
        }
    )
    assert {name: bar["met"] for name, bar in found.items()} == {
        "times_jupedsim_at_4_per_m2": True,
        "million_real_time": False,
        "million_peak_mib": True,
        "mean_egress_off_jupedsim": False,
        "overlap_m_rooms_4": False,
        "overlap_m_festival": True,
    }
    assert found["million_real_time"] == {"figure": 0.99, "at_least": 1.0, "met": False}
