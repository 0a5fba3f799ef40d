"""Fixtures of the browser tests. ESPLANADE_BASE_URL points the tests that need no more than a console at a running service; else a house of our own is built."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import ARGS, chromium_path

ROOT = Path(__file__).parents[2]
DESK = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="package")
def house() -> Iterator[Any]:
    if os.environ.get("ESPLANADE_BASE_URL"):
        pytest.skip("needs a service of its own; ESPLANADE_BASE_URL points elsewhere")
    from tests.browser.house import CONSOLE, house_of

    if not (CONSOLE / "index.html").is_file():
        pytest.skip("the console is not built: run script/console")
    with house_of("parkside_mall.json") as house:
        yield house


@pytest.fixture(autouse=True)
def no_offers_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "house" in request.fixturenames:
        request.getfixturevalue("house").end_offers()


@pytest.fixture(scope="package")
def base_url(request: pytest.FixtureRequest) -> str:
    """Where the console is served (package scope: a browser driven from this thread must be gone before asyncio tests run), without a slash at the end."""
    given = os.environ.get("ESPLANADE_BASE_URL")
    return given.rstrip("/") if given else str(request.getfixturevalue("house").base_url)


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    path = chromium_path()
    if path is None:
        pytest.skip("no Chromium here: install one (Debian: chromium), or name one in ESPLANADE_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, base_url: str) -> Iterator[Callable[..., Any]]:
    """Open a view in a context of its own; the test fails where the page logged an error that was not expected."""
    contexts: list[Any] = []
    faults: list[str] = []

    def open_(view: str, viewport: dict[str, int] = DESK, expected: tuple[str, ...] = (), **context_args: Any) -> Any:
        context = browser.new_context(viewport=viewport, locale="en-GB", **context_args)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # a limit that only a page that stays broken reaches: software-drawn maps take long on a busy machine

        def said(message: Any) -> None:
            if message.type == "error" and not any(part in message.text for part in expected):
                faults.append(message.text)

        page.on("console", said)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"{base_url}/{view}")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert faults == []
