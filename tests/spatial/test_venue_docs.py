"""`docs/venues.md` names every check rule and every part of an overlay."""

from __future__ import annotations

import re
from pathlib import Path

from spatial import checks
from spatial.importers.overlay import Overlay

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "venues.md").read_text()


def test_every_rule_of_the_check_is_explained() -> None:
    source = Path(checks.__file__).read_text()
    rules = set(re.findall(r'Finding\(\s*(?:"\w+"|severity), [\w.\[\]"]+, "(\w+)"', source))
    assert len(rules) >= 17
    assert {rule for rule in rules if f"`{rule}`" not in PAGE} == set()


def test_every_part_of_an_overlay_is_shown() -> None:
    assert {name for name in Overlay.model_fields if name not in PAGE} == set()
