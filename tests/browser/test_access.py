"""Every screen through axe, in both themes: nothing serious."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import DESK, PHONE

pytestmark = [pytest.mark.services]
AXE = Path(__file__).parents[2] / "console" / "node_modules" / "axe-core" / "axe.min.js"
SCREENS = {
    "start": ("", DESK, "a.primary"),
    "operator": ("#/operator/demo/parkside", DESK, "[data-figure=clock]"),
    "ways": ("#/operator/demo/parkside?tool=ways", DESK, ".ends"),
    "edits": ("#/operator/demo/parkside?tool=edits&unit=L0-room-4", DESK, ".history, .form"),
    "ar": ("#/ar/demo/parkside?level=1&scene=empty", DESK, ".rail [data-figure=anchors]"),
    "shopper": ("#/shopper/demo/parkside?location=north_entrance", PHONE, "[data-store]"),
    "entrances": ("#/shopper/demo/parkside", PHONE, ".entrances button"),
}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_axe_finds_nothing_serious(open_page: Callable[..., Any], screen: str, theme: str) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: run `npm ci` in console/")
    view, viewport, ready = SCREENS[screen]
    page = open_page(view, viewport, color_scheme=theme)
    page.locator(ready).first.wait_for()
    page.wait_for_timeout(500)
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    serious = [
        f"{v['id']}: {v['help']}: {[n['html'][:120] for n in v['nodes'][:3]]}" for v in found["violations"] if v["impact"] in ("serious", "critical")
    ]
    assert serious == []
