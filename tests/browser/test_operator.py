"""The operator's view in a real browser, against a real gateway: what the screen says is what the service says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.house import PASSWORD

pytestmark = [pytest.mark.services]
VIEW = "#/operator/demo/parkside"


def number(text: str) -> int:
    return int(re.sub(r"[^0-9]", "", text) or -1)


def scene(page: Any, expression: str) -> Any:
    """Ask the map on the page; `m` is the scene."""
    return page.evaluate(f"(() => {{ const m = window.esplanade.scene; return {expression}; }})()")


def wait_for_people(page: Any) -> None:
    page.wait_for_function("() => window.esplanade?.scene?.dots.count > 20")


def test_people_move_and_the_count_is_the_services(open_page: Callable[..., Any], house: Any) -> None:
    page = open_page(VIEW)
    wait_for_people(page)
    page.wait_for_function("() => Number(document.querySelector('[data-figure=inside]').textContent.replace(/\\D/g, '')) >= 280")
    before = scene(page, "Object.fromEntries([...m.dots.pseudonym].map((p, i) => [p, [m.dots.xy[2 * i], m.dots.xy[2 * i + 1]]]))")
    page.wait_for_timeout(1500)
    after = scene(page, "Object.fromEntries([...m.dots.pseudonym].map((p, i) => [p, [m.dots.xy[2 * i], m.dots.xy[2 * i + 1]]]))")
    same = before.keys() & after.keys()
    assert len(same) > 0.8 * len(before)
    steps = [((before[p][0] - after[p][0]) ** 2 + (before[p][1] - after[p][1]) ** 2) ** 0.5 for p in same]
    assert sum(step > 0.2 for step in steps) > 0.5 * len(steps)
    assert max(steps) < 15


def test_dots_are_drawn_on_the_canvas(open_page: Callable[..., Any]) -> None:
    page = open_page(VIEW + "?layers=people")
    wait_for_people(page)
    page.wait_for_timeout(800)
    with_people = page.locator(".map-gl canvas").screenshot()
    page.get_by_role("switch", name="People").uncheck()
    page.wait_for_timeout(400)
    assert page.locator(".map-gl canvas").screenshot() != with_people


@pytest.mark.parametrize("way", ["click", "digit"])
def test_levels_switch_by_click_and_digit(open_page: Callable[..., Any], way: str) -> None:
    page = open_page(VIEW)
    wait_for_people(page)
    seen = scene(page, "[...m.dots.pseudonym]")
    if way == "click":
        page.get_by_role("radio", name=re.compile("Second floor")).click()
    else:
        page.keyboard.press("4")
    page.wait_for_function("() => document.querySelector('[data-level=\"3\"]').getAttribute('aria-checked') === 'true'")
    assert "level=3" in page.url
    same = "Math.abs(window.esplanade.scene.dots.count - Number(document.querySelector('[data-level=\"3\"] b').textContent)) <= 5"
    page.wait_for_function(f"() => window.esplanade.scene.dots.count > 20 && {same}")
    assert not set(scene(page, "[...m.dots.pseudonym]")) & set(seen)


def test_the_address_holds_the_view(open_page: Callable[..., Any]) -> None:
    page = open_page(VIEW + "?level=2&at=60.0,30.0,3.00&layers=people,density")
    wait_for_people(page)
    assert page.locator("[data-level='2']").get_attribute("aria-checked") == "true"
    assert scene(page, "m.camera") == {"x": 60, "y": 30, "zoom": 3}
    assert page.get_by_role("switch", name="Density").is_checked()
    assert not page.get_by_role("switch", name="Names").is_checked()


def test_search_by_slash_selects_a_shop_and_says_who_is_inside(open_page: Callable[..., Any], house: Any) -> None:
    page = open_page(VIEW)
    wait_for_people(page)
    occupant = max(house.venue.occupants, key=lambda o: o.popularity)
    page.keyboard.press("/")
    page.keyboard.type(occupant.name[:6])
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=occupant.name, exact=True).wait_for()
    assert f"unit={occupant.unit_id}" in page.url
    page.wait_for_function("() => /\\d/.test(document.querySelector('[data-figure=occupancy]').textContent)")
    assert abs(number(page.locator("[data-figure=occupancy]").inner_text()) - house.inside(occupant.unit_id)) <= 8
    page.keyboard.press("Escape")
    page.get_by_role("heading", name="Run").wait_for()


def test_a_flash_sale_created_here_is_in_the_service_and_on_the_timeline(open_page: Callable[..., Any], house: Any) -> None:
    unit = house.venue.occupants[3].unit_id
    page = open_page(f"{VIEW}?unit={unit}")
    wait_for_people(page)
    pushes = page.locator("dt:text-is('Pushes') + dd")
    page.get_by_role("button", name="Flash sale now").click()
    page.get_by_text("is accepted and durable").wait_for()
    page.locator(".timeline-bar.flash").first.wait_for()
    page.locator(".offers .tag.active").first.wait_for()
    page.keyboard.press("Escape")
    page.wait_for_function(
        "() => Number([...document.querySelectorAll('dt')].find(d => d.textContent === 'Pushes').nextSibling.textContent.replace(/\\D/g, '')) >= 280"
    )
    assert number(pushes.inner_text()) >= 280


def test_an_offer_by_the_form_has_the_radius_asked_for(open_page: Callable[..., Any], house: Any) -> None:
    unit = house.venue.occupants[5].unit_id
    page = open_page(f"{VIEW}?unit={unit}")
    wait_for_people(page)
    page.get_by_role("button", name="Create offer").click()
    page.get_by_label("Title").fill("Two for one")
    page.get_by_role("radio", name="Who comes within").check()
    page.get_by_role("spinbutton", name="Who comes within").fill("12")
    page.get_by_role("button", name="Create", exact=True).click()
    page.get_by_text("“Two for one” is accepted").wait_for()
    page.locator(".offers li", has_text="Two for one").get_by_text("within 12 m").wait_for()


def test_disconnected_the_last_state_stays_greyed_and_comes_back(open_page: Callable[..., Any], house: Any) -> None:
    page = open_page(VIEW, expected=("WebSocket connection",))
    wait_for_people(page)
    house.stop_gateway()
    try:
        page.locator("[data-state=lost]").wait_for()
        assert re.search(r"Reconnecting, .* old", page.locator("[data-state=lost]").inner_text())
        page.locator(".map-stale").wait_for(state="attached")
        assert scene(page, "m.dots.count") > 20
    finally:
        house.start_gateway()
    page.locator("[data-state=lost]").wait_for(state="detached")
    before = scene(page, "m.dots.xy.slice()")
    page.wait_for_timeout(1500)
    assert scene(page, "m.dots.xy.slice()") != before


def test_a_shoppers_token_gets_the_designed_refusal(open_page: Callable[..., Any], house: Any, base_url: str) -> None:
    page = open_page("")
    page.evaluate("token => sessionStorage.setItem('esplanade.operator.demo.token', token)", house.operator_token("shopper"))
    page.goto(f"{base_url}/{VIEW}")
    page.get_by_role("heading", name="This view is for operators.").wait_for()
    page.get_by_label("Token").fill(house.operator_token())
    page.get_by_role("button", name="Sign in with a token").click()
    wait_for_people(page)
    assert house.operator_token() not in page.url


def test_an_operator_signs_in_with_a_password_and_goes_on_by_refreshing(open_page: Callable[..., Any], house: Any, base_url: str) -> None:
    page = open_page("", expected=("403", "401"))
    page.evaluate("token => sessionStorage.setItem('esplanade.operator.demo.token', token)", house.operator_token("shopper"))
    page.goto(f"{base_url}/{VIEW}")
    page.get_by_role("button", name="Sign in with name and password").click()
    page.get_by_label("Name").fill("ann")
    page.get_by_label("Password").fill("a wrong password")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    assert page.get_by_label("Tenant").input_value() == "demo"
    page.get_by_label("Name").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    wait_for_people(page)
    assert "code=" not in page.url
    assert VIEW.partition("?")[0] in page.url
    held = "() => sessionStorage.getItem('esplanade.operator.demo.refresh')"
    first = page.evaluate(held)
    page.evaluate("sessionStorage.setItem('esplanade.operator.demo.token', 'a.b.c')")  # as one that has run out
    page.reload()
    wait_for_people(page)
    assert first.startswith("esr_")
    assert page.evaluate(held) not in (None, first)


def test_an_unknown_venue_is_a_designed_state(open_page: Callable[..., Any]) -> None:
    page = open_page("#/operator/demo/nowhere", expected=("404",))
    page.get_by_text("There is no venue “nowhere” here.").wait_for()
    page.get_by_role("link", name="All venues").click()
    page.get_by_role("link", name="Watch as operator").first.wait_for()
