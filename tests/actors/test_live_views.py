"""Dots and density: only while watched, under pseudonyms."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from actors import position_kernels as kernels
from actors.live_views import WATCH_S
from actors.topics import Density, Dots
from actors.warm_up import warm_up
from tests.actors.parkside import from_u4, rows
from tests.actors.stage import stage

TOPICS = ("venue/parkside/dots/0", "venue/parkside/density/0")


async def test_dots_and_density_are_made_only_while_somebody_watches() -> None:
    async with stage() as at:
        heard = await at.listen(*TOPICS)
        await at.system.take("demo", "parkside", rows((5, 0, 7.0, 24.0), (6, 0, 7.5, 24.5), (7, 1, 7.0, 24.0)), source=None, tick=None)
        await at.poll(0.1)
        assert await heard.all() == []
        await at.system.watch("demo", "parkside", dict.fromkeys(TOPICS, 5.0))
        for _ in range(10):
            await at.poll(0.1)
        bodies = [body for _, body in await heard.all()]
        dots = [body for body in bodies if isinstance(body, Dots)]
        assert len(dots) == 5, "at 5 Hz, every other tick"
        assert sorted(np.frombuffer(dots[0].x, "<f4").tolist()) == [7.0, 7.5]
        assert not {5, 6} & set(from_u4(dots[0].pseudonym))
        density = [body for body in bodies if isinstance(body, Density)]
        count = np.frombuffer(density[0].count, "<u2").reshape(density[0].rows, density[0].cols)
        assert count.sum() == 2
        assert count[int((24 - density[0].y0_m) // density[0].cell_m), int((7 - density[0].x0_m) // density[0].cell_m)] == 2
        at.clock.advance(WATCH_S - 1)
        await at.system.shards[0].renew()
        at.clock.advance(1.5)
        await at.poll()
        await heard.all()
        await at.poll(0.3)
        assert await heard.all() == []


@given(st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=200), st.binary(min_size=64, max_size=64))
def test_pseudonyms_of_different_subjects_differ(subjects: set[int], key: bytes) -> None:
    subject = np.array(sorted(subjects), np.uint32)
    name = np.empty_like(subject)
    kernels.pseudonyms(subject, np.frombuffer(key, "<u8"), name)
    assert len(set(name.tolist())) == len(subjects)


def test_another_epoch_gives_other_pseudonyms() -> None:
    subject = np.arange(1000, dtype=np.uint32)
    names = []
    for byte in (b"a", b"b"):
        name = np.empty_like(subject)
        kernels.pseudonyms(subject, np.frombuffer(byte * 64, "<u8"), name)
        names.append(name)
    assert (names[0] == names[1]).sum() < 5


def test_warming_up_runs_every_kernel() -> None:
    warm_up()
    for kernel in (kernels.crossings, kernels.cross, kernels.pushes_to_moved, kernels.pushes_of_started, kernels.record_pushes, kernels.pseudonyms):
        assert kernel.signatures, kernel
