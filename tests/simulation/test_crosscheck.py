"""Against JuPedSim in its own process: the same room, model, parameters, places and step."""

from __future__ import annotations

import os

import pytest

from benchmarks.crowd import PEER, crosscheck


@pytest.mark.skipif(not os.environ.get(PEER), reason=f"{PEER} names no interpreter that has jupedsim")
def test_people_are_out_of_a_room_when_they_are_by_jupedsim() -> None:
    found = crosscheck(os.environ[PEER])
    assert found["ours_left"] == found["peer_left"] == 1600
    assert abs(float(str(found["off"]))) <= 0.05, found
