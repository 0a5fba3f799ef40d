"""Addresses, partitions, clocks and errors."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esplanade.core import errors
from esplanade.core.clock import ManualClock, ticks
from esplanade.core.errors import EsplanadeError, InvalidInput
from esplanade.core.ids import PARTITIONS, VENUE_KINDS, Address, partition_of

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,20}", fullmatch=True)


@given(names, names, names)
def test_an_address_reads_back_as_written(kind: str, tenant: str, entity: str) -> None:
    address = Address(kind, tenant, entity)
    assert Address.parse(str(address)) == address
    assert 0 <= partition_of(address) < PARTITIONS


@pytest.mark.parametrize("text", ["", "mall", "mall/demo", "mall/demo/a/b", "mall//a", "mall/demo/-a", "mall/demo/" + "a" * 129, "mall/de mo/a"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="kind/tenant/id"):
        Address.parse(text)


@given(names, names, names)
def test_what_belongs_to_a_venue_shares_its_partition(tenant: str, venue: str, zone: str) -> None:
    partitions = {partition_of(Address(kind, tenant, venue)) for kind in VENUE_KINDS}
    partitions.add(partition_of(Address("zone", tenant, f"{venue}:{zone}")))
    assert len(partitions) == 1


def test_partitions_are_fixed_for_the_life_of_a_deployment() -> None:
    assert partition_of(Address("mall", "demo", "parkside")) == 28
    assert partition_of(Address("ledger", "demo", "3")) == 37


def test_keys_spread_over_the_partitions() -> None:
    used = {partition_of(Address("session", "demo", str(i))) for i in range(4000)}
    assert len(used) == PARTITIONS


def test_error_codes_are_distinct_and_in_the_docstring() -> None:
    # Ray makes subclasses of its own from what crosses its borders.
    tree = [error for error in EsplanadeError.__subclasses__() if error.__module__ == errors.__name__]
    codes = [error.code for error in tree]
    assert len(set(codes)) == len(codes)
    assert errors.__doc__ is not None
    for error in tree:
        line = next(line for line in errors.__doc__.splitlines() if f"-- {error.__name__} " in line)
        assert line.split()[2] == error.code
        assert line.split()[3] == ("yes" if error.retryable else "no")


def test_a_manual_clock_goes_only_forward() -> None:
    clock = ManualClock()
    clock.advance(1.5)
    assert clock.monotonic_s() == 1.5
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


async def test_who_sleeps_on_a_manual_clock_wakes_when_it_is_moved() -> None:
    clock = ManualClock()
    woken: list[str] = []

    async def sleep(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(name)

    async with asyncio.TaskGroup() as sleepers:
        sleepers.create_task(sleep("late", 2.0))
        sleepers.create_task(sleep("soon", 0.5))
        sleepers.create_task(sleep("soon too", 0.5))
        ended = sleepers.create_task(sleep("never", 1.0))
        await asyncio.sleep(0)
        clock.advance(0.4)
        ended.cancel()
        await asyncio.sleep(0)
        assert woken == []
        clock.advance(0.6)
        await asyncio.sleep(0)
        assert woken == ["soon", "soon too"]
        clock.advance(1.0)
    assert woken == ["soon", "soon too", "late"]


def test_seconds_become_ticks() -> None:
    assert [ticks(s) for s in (0, 0.1, 1, 60)] == [0, 1, 10, 600]
