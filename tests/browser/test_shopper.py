"""The shopper's view on a phone's screen, against a real gateway: walk in, walk, be offered, pay, lose the line and come back."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from esplanade.core.errors import Unavailable
from simulation.phones import Air, AirSettings, Phones, PhoneSettings, survey
from spatial.offers import Inside, Offer
from spatial.positioning.model import save_model
from tests.actors.parkside import rows
from tests.browser.conftest import PHONE

pytestmark = [pytest.mark.services]
VIEW = "#/shopper/demo/parkside?location=north_entrance"


def walked_in(open_page: Callable[..., Any], view: str = VIEW, **args: Any) -> Any:
    page = open_page(view, PHONE, **args)
    page.locator("[data-store]").first.wait_for()
    page.wait_for_function("() => window.esplanade?.scene && window.esplanade.shopper?.walker.value")
    return page


def subject_of(page: Any) -> int:
    """Who the guest's token says the page is."""
    token = page.evaluate("sessionStorage.getItem('esplanade.shopper.demo.token')")
    body = token.split(".")[1]
    return int(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["sub"])


def me(page: Any) -> list[float]:
    return list(page.evaluate("window.esplanade.shopper.walker.value.point"))


def offer(house: Any, name: str, unit: str) -> Offer:
    return Offer(
        id=name, unit_id=unit, title=f"{name} at the test", audience=Inside(), starts_tick=house.tick() + 5, ends_tick=house.tick() + 600, flash=True
    )


def test_walk_in_centres_the_entrance_and_shows_the_nearest_stores(open_page: Callable[..., Any], house: Any) -> None:
    page = walked_in(open_page)
    entrance = next(e for e in house.venue.entrances if e.code == "north_entrance")
    assert math.dist(me(page), entrance.point) < 3
    page.wait_for_timeout(600)
    x, y = page.evaluate("window.esplanade.scene.project(window.esplanade.shopper.walker.value.point)")
    assert abs(x - PHONE["width"] / 2) < 3
    assert 64 < y < PHONE["height"] * 0.6
    shown = page.locator("[data-store]").evaluate_all("rows => rows.map(row => row.dataset.store)")
    anchors = {o.unit_id: ((o.a[0] + o.b[0]) / 2, (o.a[1] + o.b[1]) / 2) for o in reversed(house.venue.openings) if o.level_id == entrance.level_id}
    shops = {o.unit_id for o in house.venue.occupants} & anchors.keys()
    nearest = sorted(shops, key=lambda unit: math.dist(anchors[unit], entrance.point))
    assert shown[0] == nearest[0]
    assert len(set(shown[:5]) & set(nearest[:8])) >= 4


def test_walking_by_tap_moves_me_at_walking_speed_and_renews_the_list(open_page: Callable[..., Any], house: Any) -> None:
    page = walked_in(open_page)
    start = me(page)
    page.get_by_role("button", name=re.compile("^Walk here")).last.scroll_into_view_if_needed()
    page.get_by_role("button", name=re.compile("^Walk here")).last.click()
    page.wait_for_timeout(3000)
    moved = math.dist(start, me(page))
    assert 1.0 < moved < 8.0
    first = page.locator("[data-store]").first.get_attribute("data-store")
    page.wait_for_function(f"() => document.querySelector('[data-store]').dataset.store !== '{first}'", timeout=60_000)


def test_arrow_keys_walk(open_page: Callable[..., Any]) -> None:
    page = walked_in(open_page)
    start = me(page)
    page.locator(".map-root").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_timeout(1800)
    end = me(page)
    assert end[1] < start[1] - 1
    assert abs(end[0] - start[0]) < 0.1


def test_the_server_knows_where_i_am(open_page: Callable[..., Any], house: Any) -> None:
    page = walked_in(open_page, "#/shopper/demo/parkside?location=west_entrance")
    page.wait_for_timeout(2500)
    level = page.evaluate("window.esplanade.shopper.level.value")
    assert np.hypot(*(house.people_on(level) - me(page)).T).min() < 0.5


def test_a_phone_that_says_what_it_hears_is_drawn_with_the_ellipse_and_the_levels_it_was_told(
    open_page: Callable[..., Any], house: Any, tmp_path: Path
) -> None:
    air = Air(house.venue, seed=3, settings=AirSettings(wifi_m=12.0, ble_m=16.0))
    save_model(survey(air, seed=3), tmp_path / "map.npz")
    house.put_radio_map((tmp_path / "map.npz").read_bytes())
    page = walked_in(open_page)
    x, y = me(page)
    level = page.evaluate("window.esplanade.shopper.level.value")
    phones = Phones(air, 3, PhoneSettings(fading_db=2.0, missed=0.02, gap=0.0, scan_s=1.0, no_compass=0.0, delay_s=0.0, lost=0.0))
    for second in range(7):
        here = rows((7, level, x + 0.8 * second, y))
        for message in phones.sense(float(second), here):
            state = page.evaluate("fields => window.esplanade.shopper.sense(fields)", phones.fields(message))
    assert state == "located"
    fix = page.evaluate("window.esplanade.shopper.fix.value")
    assert math.dist(me(page), (x + 0.8 * 6, y)) < 2 * fix["radiusM"] + 2
    assert np.linalg.eigvalsh([[fix["cov"][0], fix["cov"][1]], [fix["cov"][1], fix["cov"][2]]]).min() > 0
    text = page.locator("[data-figure=radius]")
    text.get_by_text("nine times in ten").wait_for()
    assert f"{house.venue.levels[level].name} " in text.inner_text()
    assert "found by your phone" in page.locator(".where").inner_text().lower()
    told = me(page)
    page.locator(".map-root").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_timeout(600)
    assert me(page) == told  # readings say where I am, not taps


def test_an_unknown_entrance_offers_the_known_ones(open_page: Callable[..., Any]) -> None:
    page = open_page("#/shopper/demo/parkside?location=cellar_door", PHONE)
    page.get_by_role("heading", name="This entrance is not known.").wait_for()
    page.locator(".entrances button").nth(1).click()
    page.locator("[data-store]").first.wait_for()


def test_a_push_becomes_a_toast_once_and_says_why(open_page: Callable[..., Any], house: Any) -> None:
    page = walked_in(open_page)
    page.wait_for_timeout(500)
    house.create_offer(offer(house, "toast-1", house.venue.occupants[0].unit_id))
    toast = page.locator(".toast", has_text="toast-1 at the test")
    toast.wait_for()
    toast.get_by_role("button", name="Why me?").click()
    toast.get_by_text("everyone inside the venue").wait_for()
    toast.get_by_role("button", name="Save").click()
    toast.wait_for(state="detached")
    page.get_by_role("tab", name="Saved").click()
    page.get_by_role("tabpanel").get_by_text("toast-1 at the test").wait_for()
    page.wait_for_timeout(1000)
    assert page.locator(".toast", has_text="toast-1").count() == 0


def test_pushes_made_while_the_line_was_down_arrive_after_it(open_page: Callable[..., Any], house: Any) -> None:
    page = walked_in(open_page, expected=("WebSocket connection",))
    page.wait_for_timeout(500)
    house.create_offer(offer(house, "before-cut", house.venue.occupants[1].unit_id))
    page.locator(".toast", has_text="before-cut").get_by_role("button", name="Dismiss", exact=True).last.click()
    house.stop_gateway()
    try:
        page.locator("[data-state=lost]").wait_for()
        assert page.locator("[data-store]").count() > 3
        house.create_offer(offer(house, "during-cut", house.venue.occupants[2].unit_id))
        page.wait_for_timeout(1500)
        assert page.locator(".toast", has_text="during-cut").count() == 0
    finally:
        house.start_gateway()
    page.locator("[data-state=lost]").wait_for(state="detached")
    page.locator(".toast", has_text="during-cut").wait_for()
    page.wait_for_timeout(500)
    assert page.locator(".toast", has_text="before-cut").count() == 0


def test_a_reload_is_the_same_person(open_page: Callable[..., Any]) -> None:
    page = walked_in(open_page)
    first = subject_of(page)
    page.reload()
    page.locator("[data-store]").first.wait_for()
    assert subject_of(page) == first
    assert "token" not in page.url


def test_paying_takes_from_the_wallet_once(open_page: Callable[..., Any], house: Any) -> None:
    page = walked_in(open_page)
    house.top_up(subject_of(page), 5000)
    page.reload()
    page.wait_for_function("() => document.querySelector('.wallet-button')?.textContent.includes('50')")
    till = next(
        u for u in house.venue.units if u.till and u.level_id == next(e for e in house.venue.entrances if e.code == "north_entrance").level_id
    )
    opening = next(o for o in house.venue.openings if o.unit_id == till.id)
    page.evaluate(f"window.esplanade.shopper.walker.value = {{ point: [{(opening.a[0] + opening.b[0]) / 2}, {(opening.a[1] + opening.b[1]) / 2}] }}")
    page.get_by_role("button", name="Wallet").click()
    page.get_by_label("Amount").fill("12.34")
    page.get_by_role("button", name="Pay now").click()
    page.get_by_text(re.compile("^Paid .*12.34")).wait_for()
    assert "37.66" in page.locator("[data-figure=balance]").inner_text()


def test_paying_more_than_there_is_says_so(open_page: Callable[..., Any], house: Any) -> None:
    page = walked_in(open_page)
    shop = next(
        u for u in house.venue.units if u.till and u.level_id == next(e for e in house.venue.entrances if e.code == "north_entrance").level_id
    )
    opening = next(o for o in house.venue.openings if o.unit_id == shop.id)
    page.evaluate(f"window.esplanade.shopper.walker.value = {{ point: [{(opening.a[0] + opening.b[0]) / 2}, {(opening.a[1] + opening.b[1]) / 2}] }}")
    page.get_by_role("button", name="Wallet").click()
    page.get_by_label("Amount").fill("1")
    page.get_by_role("button", name="Pay now").click()
    alert = page.get_by_role("dialog").get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text().strip()


def until_known(house: Any, level: int, point: list[float], *, known: bool) -> None:
    """Until an operator sees somebody at that very point, or nobody; each look waits for a frame."""
    for _ in range(30):
        with contextlib.suppress(Unavailable):  # a machine so busy that no frame came in ten seconds
            if (np.hypot(*(house.people_on(level) - point).T).min() < 0.01) == known:
                return
    raise AssertionError(f"{point} on level {level}: {'nobody' if known else 'somebody'} is seen there after all")


def test_a_house_that_asks_knows_nothing_of_me_before_i_agree_and_after_i_take_it_back(open_page: Callable[..., Any], house: Any) -> None:
    with house.asking():
        page = open_page(VIEW, PHONE)
        page.get_by_role("heading", name=f"May {house.venue.name} know where you are?").wait_for()
        assert page.evaluate("window.esplanade.shopper.walker.value === undefined")
        page.get_by_role("button", name="I agree").click()
        page.locator("[data-store]").first.wait_for()
        page.wait_for_function("() => window.esplanade?.scene && window.esplanade.shopper?.walker.value")
        level, entrance = page.evaluate("window.esplanade.shopper.level.value"), me(page)
        here = [entrance[0] + 0.37, entrance[1] + 0.21]  # where nobody else is: phones of other tests fade at the entrance itself
        page.evaluate(f"window.esplanade.shopper.walker.value = {{ point: {here} }}")
        until_known(house, level, here, known=True)
        page.get_by_role("button", name="Take back consent").click()
        page.get_by_role("heading", name="You are off the map.").wait_for()
        until_known(house, level, here, known=False)
        page.get_by_role("button", name="Ask me again").click()
        page.get_by_role("button", name="I agree").click()
        page.locator("[data-store]").first.wait_for()
