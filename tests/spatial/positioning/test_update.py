"""Walks added to a model: as good as a fit of all of them, vanished access points found, nothing added twice."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from esplanade.core.errors import InvalidInput
from spatial.positioning.digest import digest_of
from spatial.positioning.model import Model, fit, load_model, save_model
from spatial.positioning.score import Surveyed, score
from spatial.positioning.update import update
from tests.spatial.positioning import synthetic

FLOORS = (synthetic.floor("F1", 0), synthetic.floor("F2", 1))


@cache
def walks() -> list[Surveyed]:
    return synthetic.survey(10, 0) + synthetic.survey(10, 1, seed=300)


@cache
def first_half() -> Model:
    some = walks()[:6] + walks()[10:16]
    return replace(fit("made", FLOORS, some), digest=digest_of(FLOORS, some))


def others() -> list[Surveyed]:
    return walks()[6:10] + walks()[16:]


def deaf(walk: Surveyed, names: set[str]) -> Surveyed:
    """The walk, those transmitters taken off the walls before it."""
    prepared, floor, waypoints = walk
    scans = prepared.scans
    keep = np.array([name not in names for name in scans.names], np.bool_)[scans.transmitter]
    row = np.repeat(np.arange(len(scans)), np.diff(scans.first))[keep]
    number = np.cumsum([name not in names for name in scans.names]) - 1
    cut = replace(
        scans, first=np.searchsorted(row, np.arange(len(scans) + 1)).astype(np.int32), transmitter=number[scans.transmitter[keep]].astype(np.int32),
        rssi_dbm=scans.rssi_dbm[keep], names=tuple(name for name in scans.names if name not in names),
    )  # fmt: skip
    return replace(prepared, scans=cut), floor, waypoints


def test_an_updated_model_is_close_to_one_fitted_from_all_walks() -> None:
    done = update(first_half(), others())
    whole = fit("made", FLOORS, walks())
    assert (done.model.version, done.model.walks, done.added, done.known) == (2, 20, 8, 0)
    assert done.vanished == ()
    assert done.model.radio.transmitters == whole.radio.transmitters
    apart_db = np.abs(done.model.radio.strength.astype(float) - whole.radio.strength) * 80 / 255
    assert apart_db.mean() < 0.3
    assert np.quantile(apart_db, 0.99) < 1.5
    held = synthetic.survey(2, 0, seed=900)
    errors = [float(score(model, held)[2].error_m.mean()) for model in (done.model, whole)]
    assert errors[0] < errors[1] + 0.3


def test_walks_that_are_in_the_model_are_not_added_twice() -> None:
    done = update(first_half(), walks())
    assert (done.added, done.known) == (8, 12)
    with pytest.raises(InvalidInput, match="in the model already"):
        update(done.model, walks())


def test_an_access_point_that_is_gone_loses_its_field() -> None:
    gone = set(first_half().radio.transmitters[3:5])
    done = update(first_half(), [deaf(walk, gone) for walk in others()])
    assert set(done.vanished) == gone
    assert not gone & set(done.model.radio.transmitters)
    back = update(done.model, synthetic.survey(4, 0, seed=700) + synthetic.survey(4, 1, seed=800))
    assert set(back.came) == gone


def test_a_phone_that_is_deaf_for_half_of_them_makes_none_vanish() -> None:
    half = set(first_half().radio.transmitters[::2])
    done = update(first_half(), [deaf(walk, half) for walk in others()])
    assert done.vanished == ()
    assert done.doubted >= len(half) // 2
    assert half <= set(done.model.radio.transmitters)


def test_digest_and_version_are_in_the_file_and_a_model_without_digest_is_a_clear_error(tmp_path: Path) -> None:
    done = update(first_half(), others())
    save_model(done.model, tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert again.version == 2
    assert again.digest is not None
    for name, array in done.model.digest.arrays().items():  # type: ignore[union-attr]
        np.testing.assert_array_equal(array, again.digest.arrays()[name])
    with pytest.raises(InvalidInput, match="no digest"):
        update(replace(again, digest=None), walks())


def test_walks_without_waypoints_teach_nothing() -> None:
    walk, floor, _ = synthetic.survey(1, 0, seed=950)[0]
    with pytest.raises(InvalidInput, match="waypoints on"):
        update(first_half(), [(walk, floor, np.zeros((0, 3)))])
    with pytest.raises(InvalidInput, match="waypoints on"):
        update(first_half(), [(walk, "attic", np.zeros((3, 3)))])
