"""The air of a venue and its phones: near is loud, walls and floors cost, the same seed says the same, messages come late or never, and a crowd is found by what its phones say."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from esplanade.core.errors import InvalidInput
from simulation.phone_score import Truth
from simulation.phones import FLOOR_DB, WALL_DB, Air, AirSettings, Phones, PhoneSettings, survey
from spatial.columns import LEFT
from spatial.positioning.live import LiveFilter, LiveMap
from spatial.positioning.observed import State, transmitter_key
from spatial.venue import Venue
from tests.actors.parkside import rows, venue


@cache
def air() -> Air:
    return Air(venue(), seed=4, settings=AirSettings(wifi_m=9.0, ble_m=8.0))


def test_near_is_loud_and_walls_and_floors_cost() -> None:
    made = Air(venue(), seed=4, settings=AirSettings(wifi_m=9.0, ble_m=8.0, shadow_db=0.0))
    i = int(np.argmin(np.hypot(made.place[:, 1] - 20, made.place[:, 2] - 15) + 100 * made.place[:, 0] + 100 * made.place[:, 3]))
    x, y = made.place[i, 1:3]
    open_floor = made.mean_dbm(0, np.array([[x, y - d] for d in (0.0, 3.0, 6.0, 9.0)]))[:, i]
    assert (np.diff(open_floor) < -2).all()
    away = 24.0 - y
    through_a_wall, without = made.mean_dbm(0, np.array([[x, 24.0], [x, y - away]]))[:, i]
    assert without - through_a_wall == pytest.approx(WALL_DB, abs=2.0)
    assert open_floor[0] - made.mean_dbm(1, np.array([[x, y]]))[0, i] > FLOOR_DB


def test_the_same_seed_says_the_same_and_another_does_not() -> None:
    def said(seed: int) -> list[tuple[int, float, bytes]]:
        phones = Phones(air(), seed)
        told = [phones.sense(float(s), rows((1, 0, 10.0 + s, 10.0), (2, 1, 20.0, 10.0 + s))) for s in range(8)]
        return [(message.subject, message.at_s, message.rssi_dbm.tobytes()) for second in told for message in second]

    assert said(1) == said(1)
    assert said(1) != said(2)
    assert (
        air().mean_dbm(0, np.array([[5.0, 5.0]])).tobytes()
        == Air(venue(), seed=4, settings=air().settings).mean_dbm(0, np.array([[5.0, 5.0]])).tobytes()
    )


def test_messages_come_late_out_of_order_or_never_and_none_twice() -> None:
    phones = Phones(air(), 1, PhoneSettings(delay_s=1.5, lost=0.2))
    crowd = rows(*((subject, 0, 10.0, 10.0) for subject in range(50)))
    arrived = [message for second in range(40) for message in phones.sense(float(second), crowd)]
    arrived += phones.rest()
    assert len({(message.subject, message.at_s) for message in arrived}) == len(arrived) == phones.account.sent - phones.account.lost
    assert phones.account.sent == 2000
    assert 300 < phones.account.lost < 500
    assert any(b.at_s < a.at_s for a, b in pairwise(arrived))


def test_scans_are_seldom_and_who_leaves_is_forgotten() -> None:
    phones = Phones(air(), 1, PhoneSettings(scan_s=4.0, gap=0.0, delay_s=0.0, lost=0.0))
    wifi = np.flatnonzero(air().place[:, 3] == 0)
    told = [phones.sense(float(s), rows((9, 0, 10.0, 10.0)))[0] for s in range(20)]
    assert sum(np.isin(message.transmitter, wifi).any() for message in told) == 5
    assert all((~np.isin(message.transmitter, wifi)).any() for message in told)
    assert phones.sense(20.0, rows((9, LEFT, 0.0, 0.0))) == []


def test_a_message_reads_the_same_as_columns_and_as_a_frame() -> None:
    phones = Phones(air(), 1, PhoneSettings(scan_s=1.0, gap=0.0, delay_s=0.0, lost=0.0, no_compass=0.0, step_rad=0.0))
    phones.sense(0.0, rows((9, 0, 10.0, 10.0)))
    [message] = phones.sense(1.0, rows((9, 0, 11.2, 10.9)))
    columns, fields = phones.observed([message]), phones.fields(message)
    assert set(columns.key.tolist()) == {transmitter_key(air().names[i]) for i in message.transmitter.tolist()}
    assert len(fields["wifi"]) + len(fields["ble"]) == len(columns.key)
    heading, length = np.array(fields["steps"]).T
    east, north = (length * np.sin(np.radians(heading))).sum(), (length * np.cos(np.radians(heading))).sum()
    assert (east, north) == pytest.approx((columns.east_m[0], columns.north_m[0]), abs=1e-4)
    assert np.hypot(east, north) == pytest.approx(1.5, rel=0.3)


def test_people_who_stand_about_are_found_on_their_level() -> None:
    live, phones, truth = LiveFilter(LiveMap(survey(air(), seed=4, spacing_m=2.5), ("0", "1"))), Phones(air(), 4), Truth()
    rng = np.random.default_rng(1)
    crowd = rows(*((subject, subject % 2, float(rng.uniform(2, 38)), float(rng.uniform(2, 27))) for subject in range(60)))
    for second in range(20):
        truth.put(float(second), crowd)
        batch = phones.sense(float(second), crowd)
        answers = live.take(phones.observed(batch), float(second))
        for i, message in enumerate(batch):
            x, y = answers.xy_m[i].tolist()
            truth.compare(
                message.subject,
                round(message.at_s * 1000),
                State(int(answers.state[i])).name.lower(),
                int(answers.level[i]),
                x,
                y,
                float(answers.radius_m[i]),
            )
    report = truth.report(phones=60, observations=0, lost=0, cpu_us=0.0)
    assert report.told > 600
    assert report.level_right > 0.9
    assert report.median_m < 4.0
    assert report.in_radius > 0.7


def test_a_venue_without_ground_is_refused() -> None:
    bare = venue()
    nowhere: Venue = bare.model_copy(update={"levels": tuple(level.model_copy(update={"outline": ()}) for level in bare.levels)})
    with pytest.raises(InvalidInput, match="no free ground"):
        Air(nowhere, seed=1)
