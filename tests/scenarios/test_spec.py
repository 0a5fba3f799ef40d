"""Scenario files: each mistake gets one clear line; the library is valid; selectors name what they say."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from esplanade.core.errors import InvalidInput
from scenarios.metrics import METRICS
from scenarios.spec import find_scenario, library, load_scenario, parse_scenario, venue_path
from spatial.offers import Inside, Within
from tests.scenarios.plans import small_venue

GOOD: dict[str, Any] = tomllib.loads("""
name = "small"
title = "A small run"
venue = "parkside"
duration_minutes = 2
[arrivals]
hourly = [100, 200]
prefill = 10
[[offers]]
id = "near"
units = "top 2"
title = "{shop} is near"
within_m = 5
[[flash_sales]]
minute = 1
unit = "u-2"
title = "Flash at {shop}"
[[thresholds]]
metric = "pushes"
op = ">="
value = 1
""")


def _with(path: str, value: object) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    table: Any = document
    for part in parents:
        table = table[int(part)] if isinstance(table, list) else table.setdefault(part, {})
    table[int(last) if isinstance(table, list) else last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("arrivals.prefil", 10, "f.toml: arrivals.prefil: unknown key; did you mean 'prefill'?"),
        ("seed", -1, "f.toml: seed = -1: input should be greater than or equal to 0"),
        ("seed", "seven", "f.toml: seed = 'seven': input should be a valid integer"),
        ("duration_minutes", 0, "f.toml: duration_minutes = 0: input should be greater than or equal to 0.05"),
        ("arrivals.hourly", [], "arrivals.hourly"),
        ("arrivals.hourly", [float("nan")], "arrivals.hourly.0"),
        ("arrivals.prefill", 200_001, "arrivals.prefill = 200001"),
        ("arrivals.cap", 5, "arrivals: prefill 10 is above cap 5; raise the cap or prefill fewer people"),
        ("offers.0.audience", "inside", "offers.0: give either within_m (metres from the shop) or audience"),
        ("offers.0.within_m", 0.1, "offers.0.within_m = 0.1"),
        ("offers.0.until_minute", 0, "offers.0: until_minute 0.0 is not after from_minute 0.0; give a later end"),
        ("offers.0.id", "two words", "offers.0.id = 'two words'"),
        ("flash_sales.0.minute", 2, "flash sale at minute 2.0 is not before the end, duration_minutes = 2.0; move it or lengthen the run"),
        ("flash_sales.0.id", "near", "offer id 'near' is given twice"),
        ("clients.people", 1.5, "clients.people = 1.5"),
        ("crowd", "lanes", "f.toml: crowd = 'lanes': input should be 'shoppers' or 'walkers'"),
        ("wallets.currency", "euro", "wallets.currency = 'euro'"),
        ("faults", [{"minute": 1, "kind": "flood"}], "faults.0.kind = 'flood': input should be 'kill_shard'"),
        ("thresholds.0.metric", "pushez", "thresholds.0.metric = 'pushez': no such metric; metrics are people_inside_max"),
        ("thresholds.0.op", "=>", "thresholds.0.op = '=>'"),
        ("thresholds.0.value", "many", "thresholds.0.value = 'many'"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_file_key_and_value(path: str, value: object, said: str) -> None:
    with pytest.raises(InvalidInput) as told:
        parse_scenario(_with(path, value), where="f.toml")
    assert said in str(told.value)
    assert "\n" not in str(told.value)
    assert str(told.value).startswith("f.toml: ")


def test_a_missing_key_is_named() -> None:
    document = copy.deepcopy(GOOD)
    del document["title"]
    with pytest.raises(InvalidInput, match=r"f\.toml: title: is missing"):
        parse_scenario(document, where="f.toml")


def test_the_message_says_how_many_more_mistakes_there_are() -> None:
    document = _with("seed", -1)
    document["speed"] = -1
    with pytest.raises(InvalidInput, match=r"\(and 1 more\)"):
        parse_scenario(document, where="f.toml")


def test_what_is_no_toml_is_told_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text('name = "x"\ntitle = \n')
    with pytest.raises(InvalidInput, match=r"broken\.toml: is no TOML: .*line 2"):
        load_scenario(path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        load_scenario(tmp_path / "absent.toml")


@pytest.mark.parametrize("name", ["black_friday", "festival_friday", "site2_full_load"])
def test_every_library_scenario_is_valid(name: str) -> None:
    assert name in library()
    scenario = load_scenario(find_scenario(name))
    assert scenario.ticks > 0
    assert scenario.thresholds


@pytest.mark.parametrize(
    ("key", "value", "said"), [("hold_population", True, "leave out hold_population"), ("cap", 309, "10 inside with 300 arrivals")]
)
def test_what_walkers_cannot_do_is_told_before_a_run(key: str, value: object, said: str) -> None:
    document = _with(f"arrivals.{key}", value)
    assert parse_scenario(document, where="f").crowd == "shoppers"
    with pytest.raises(InvalidInput, match=said):
        parse_scenario(document | {"crowd": "walkers"}, where="f")


def test_an_unknown_library_name_suggests_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'black_friday'"):
        find_scenario("black_frday")


def test_the_demo_asks_for_counts_and_not_for_timings() -> None:
    timings = {name for name, metric in METRICS.items() if metric.unit in ("ms", "s", "ratio")}
    assert not timings & {threshold.metric for threshold in load_scenario(find_scenario("black_friday")).thresholds}


def test_selectors_name_the_units_they_say() -> None:
    venue = small_venue()
    for selector, units in {
        "all": ["u-1", "u-2", "u-3"],
        "top 2": ["u-2", "u-3"],
        "category coffee": ["u-2", "u-3"],
    }.items():
        made = parse_scenario(_with("offers.0.units", selector), where="f").offers_in(venue)
        assert sorted(offer.unit_id for offer in made if not offer.flash) == units
    (one,) = [o for o in parse_scenario(_with("offers.0.units", ["u-3"]), where="f").offers_in(venue) if not o.flash]
    assert (one.id, one.unit_id, one.title, one.audience) == ("near", "u-3", "Three is near", Within(radius_m=5))


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ("top many", "no such selector"),
        ("category shoes", "categories are \\['books', 'coffee'\\]"),
        (["u-22"], "has no such unit; did you mean 'u-2'"),
        ([], "names no unit"),
    ],
)
def test_a_selector_that_finds_nothing_is_told(selector: object, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_scenario(_with("offers.0.units", selector), where="f").offers_in(small_venue())


def test_a_flash_sale_becomes_an_offer_to_everyone_inside_and_a_pull_at_the_same_tick() -> None:
    scenario = parse_scenario(GOOD, where="f")
    (flash,) = [offer for offer in scenario.offers_in(small_venue()) if offer.flash]
    assert (flash.audience, flash.starts_tick, flash.title) == (Inside(), 600, "Flash at Two")
    (pull,) = scenario.demand_in(small_venue()).pulls
    assert (pull.tick, pull.unit_id) == (600, "u-2")


def test_the_venue_is_a_library_name_a_relative_path_or_the_command_lines(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    scenario = parse_scenario(_with("venue", "plans/mine.json"), where="f")
    assert venue_path(scenario, scenario_file=file) == (tmp_path / "plans/mine.json").resolve()
    assert venue_path(scenario, scenario_file=file, override=Path("other.json")) == Path("other.json")
    with pytest.raises(InvalidInput, match="no such library venue"):
        venue_path(parse_scenario(_with("venue", "nowhere"), where="f"), scenario_file=file)
    with pytest.raises(InvalidInput, match="give one with --venue FILE"):
        venue_path(load_scenario(find_scenario("site2_full_load")), scenario_file=file)
