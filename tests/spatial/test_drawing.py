"""A drawn level is a picture of the asked kind, the same every time, with the names that fit."""

from __future__ import annotations

import pytest

from esplanade.core.errors import NotFound
from scenarios.venues import make_mall
from spatial.drawing import draw

MALL = make_mall.make()


def test_png_and_svg_are_drawn_and_equal_twice() -> None:
    png = draw(MALL, 1, kind="png", dpi=40)
    assert png.startswith(b"\x89PNG")
    assert draw(MALL, 1, kind="png", dpi=40) == png
    svg = draw(MALL, 1)
    assert svg.startswith(b"<?xml")
    assert svg == draw(MALL, 1)


def test_an_ampersand_or_a_dollar_in_a_name_does_not_break_the_drawing() -> None:
    units = tuple(u.model_copy(update={"name": "A$b_c^{ & <x> の"}) if u.name else u for u in MALL.units)
    odd = MALL.model_copy(update={"units": units, "occupants": ()})
    assert draw(odd, 3).startswith(b"<?xml")


def test_no_such_level() -> None:
    with pytest.raises(NotFound, match="level 9"):
        draw(MALL, 9)
