"""Pictures of the console's screens in both themes: `python console/screenshots.py OUT [--base-url URL]`, from the repository's root with it on PYTHONPATH.

Without a URL it builds the tests' own service with a drifting crowd; give the address of a running one (`esplanade serve`, a scenario) for pictures worth showing.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from spatial.offers import Inside, Offer, Within
from tests.browser.chromium import ARGS, chromium_path
from tests.browser.house import House, house_of

DESK = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}


@contextlib.contextmanager
def service(url: str | None, document: str, people: int) -> Iterator[tuple[str, House | None]]:
    if url is not None:
        yield url.rstrip("/"), None
        return
    with house_of(document, people=people) as house:
        yield house.base_url, house


def set_scene(house: House) -> None:
    """Three offers and a flash sale to look at."""
    shops = [o for o in house.venue.occupants if any(d.unit_id == o.unit_id for d in house.venue.openings)]
    now = house.tick()
    for i, shop in enumerate(shops[1:40:13]):
        audience = Within(radius_m=12)
        offer = Offer(
            id=f"picture-{i}",
            unit_id=shop.unit_id,
            title=f"{shop.name}: two for one",
            audience=audience,
            starts_tick=now + 3,
            ends_tick=now + 2000 + 900 * i,
        )
        house.create_offer(offer)
    flash = shops[4]
    text = "Half price for ten minutes."
    house.create_offer(
        Offer(
            id="picture-flash",
            unit_id=flash.unit_id,
            title=f"Flash sale at {flash.name}",
            text=text,
            audience=Inside(),
            starts_tick=now + 60,
            ends_tick=now + 6000,
            flash=True,
        )
    )


def shoot(browser: Any, base: str, out: Path, name: str, view: str, viewport: dict[str, int], theme: str, wait_s: float) -> None:
    context = browser.new_context(viewport=viewport, color_scheme=theme, locale="en-GB", device_scale_factor=2 if viewport is PHONE else 1)
    page = context.new_page()
    page.on("console", lambda message: print(name, message.text[:200]) if message.type in ("error", "warning") else None)
    page.goto(f"{base}/{view}")
    page.wait_for_timeout(wait_s * 1000)
    page.screenshot(path=out / f"{name}_{theme}.png")
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--base-url")
    parser.add_argument("--tenant", default="demo")
    parser.add_argument("--document", default="parkside_mall.json")
    parser.add_argument("--venue", default="parkside")
    parser.add_argument("--location", default="north_entrance")
    parser.add_argument("--people", type=int, default=900)
    parser.add_argument("--wait", type=float, default=12.0, help="seconds a screen runs before its picture")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = chromium_path()
    if path is None:
        raise SystemExit("no Chromium here: install one, or name one in ESPLANADE_CHROMIUM")
    with service(args.base_url, args.document, args.people) as (base, house), sync_playwright() as playwright:
        if house is not None:
            set_scene(house)
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        where = f"{args.tenant}/{args.venue}"
        for theme in ("dark", "light"):
            shoot(browser, base, args.out, "start", "", DESK, theme, 1.5)
            shoot(browser, base, args.out, "operator", f"#/operator/{where}", DESK, theme, args.wait)
            shoot(browser, base, args.out, "shopper", f"#/shopper/{where}?location={args.location}", PHONE, theme, args.wait / 2)
        browser.close()


if __name__ == "__main__":
    main()
