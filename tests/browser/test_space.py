"""Ways, drawn zones, heat and map edits in a real browser, against a real gateway: what the screen says is what the service says."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from gateway.client import Client

pytestmark = [pytest.mark.services]
VIEW = "#/operator/demo/parkside?level=1"
GROUND = 1
_numbers = itertools.count(1)
BUILT_MS = 120_000
"""The first way of a venue builds its graph, and compiles what was not compiled: a limit for a busy machine."""


def ask(house: Any, op: str, **body: Any) -> Any:
    """As another operator, beside the browser."""
    name = f"beside-{next(_numbers)}"  # never the same twice: one name and `seq` have one effect

    async def once() -> Any:
        url = f"ws://127.0.0.1:{house._back_port}/v1/ws"
        async with await Client.connect(url, client=name, token=house.operator_token(), venue=house.venue.id, timeout_s=60.0) as client:
            return await client.request(op, venue=house.venue.id, timeout_s=60.0, **body)

    return house.run(once(), 120.0)


def shops(house: Any, level: int) -> list[Any]:
    here = {unit.id for unit in house.venue.units if house.venue.level_index(unit.level_id) == level}
    return [occupant for occupant in house.venue.occupants if occupant.unit_id in here]


def test_a_closed_lift_changes_the_way(open_page: Callable[..., Any], house: Any) -> None:
    start, goal = shops(house, 1)[3], shops(house, 3)[-2]
    page = open_page(f"{VIEW}&tool=ways&from={start.unit_id}&to={goal.unit_id}")
    page.locator("[data-figure=way]").wait_for(timeout=BUILT_MS)
    page.get_by_text("Step-free").click()
    lift = page.locator("[data-access^=lift]").first
    lift.wait_for()
    name = lift.get_attribute("data-access")
    lift.click()
    page.locator(f"[data-access={name}]:text-is('Open')").wait_for()
    assert name in ask(house, "get_access")["closed"]
    page.wait_for_function(
        f"() => document.querySelector('[data-figure=way], [data-no-way]') && ![...document.querySelectorAll('[data-access={name}]')].some(b => b.textContent === 'Close')"
    )
    page.locator(f"[data-access={name}]").click()
    page.locator(f"[data-access={name}]:text-is('Open')").wait_for(state="detached")
    assert ask(house, "get_access")["closed"] == []


def test_a_zone_is_drawn_on_the_map_lives_and_is_erased(open_page: Callable[..., Any], house: Any) -> None:
    page = open_page(f"{VIEW}&tool=zones")
    page.wait_for_function("() => window.esplanade?.scene?.dots.count > 20")
    page.get_by_role("button", name="Draw a zone").click()
    corners = page.evaluate("[[40, 20], [80, 20], [80, 60], [40, 60]].map(p => window.esplanade.scene.project(p))")
    for n, (x, y) in enumerate(corners, 1):
        page.mouse.click(x, y)
        page.locator(f"[data-figure=corners]:text-is('{n}')").wait_for()
    page.get_by_label("Name", exact=True).fill("Fountain")
    page.get_by_role("button", name="Watch the area").click()
    page.wait_for_function("() => Number(document.querySelector('[data-inside=fountain]')?.textContent) > 0")
    [zone] = ask(house, "get_zones")["zones"]
    drawn = zone["shape"]["polygon"][0][0]
    assert zone["level"] == GROUND
    assert all(
        abs(a - b) < 1.0
        for point, want in zip(drawn, ((40, 20), (80, 20), (80, 60), (40, 60)), strict=True)
        for a, b in zip(point, want, strict=True)
    )
    page.get_by_role("button", name="Erase").click()
    page.get_by_role("button", name="Erase for good").click()
    page.locator("[data-zone=fountain]").wait_for(state="detached")
    assert ask(house, "get_zones")["zones"] == []


def test_an_edit_is_made_and_taken_back(open_page: Callable[..., Any], house: Any) -> None:
    shop = shops(house, 1)[3]
    page = open_page(f"{VIEW}&tool=edits&unit={shop.unit_id}")
    page.get_by_label("Name on the map").fill("Pop-up")
    page.get_by_role("button", name="Rename").click()
    page.wait_for_function("() => document.querySelector('.history li')?.textContent.includes('Pop-up')")
    assert [edit["occupant"] for edit in ask(house, "get_edits")["done"]] == ["Pop-up"]
    page.wait_for_function("() => document.querySelector('.form input').value === 'Pop-up' && document.querySelector('.form [type=submit]').disabled")
    page.get_by_role("button", name="Undo").click()
    page.wait_for_function(f"() => document.querySelector('.form input').value === {shop.name!r}")
    assert ask(house, "get_edits")["done"] == []


def test_time_spent_is_painted_and_said(open_page: Callable[..., Any]) -> None:
    page = open_page(f"{VIEW}&layers=heat")
    page.wait_for_function("() => document.querySelector('[data-figure=heat]')?.textContent.includes('person-min')")
