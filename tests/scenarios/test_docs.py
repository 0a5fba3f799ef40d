"""docs/scenarios.md names every key of a scenario, every metric with its meaning, and every key of report.json."""

from __future__ import annotations

from pathlib import Path

from scenarios.metrics import METRICS
from scenarios.report import RunReport
from scenarios.spec import TABLES, Scenario

DOCS = (Path(__file__).parents[2] / "docs" / "scenarios.md").read_text()


def test_every_metric_is_listed_with_its_unit_and_meaning() -> None:
    missing = [name for name, metric in METRICS.items() if f"| `{name}` | {metric.unit} | {metric.meaning} |" not in DOCS]
    assert missing == []


def test_every_key_of_a_scenario_is_explained() -> None:
    keys = set(Scenario.model_fields) | {key for table in TABLES.values() for key in table.model_fields}
    assert sorted(key for key in keys if f"`{key}" not in DOCS and f"[{key}]" not in DOCS) == []


def test_every_key_of_the_report_is_explained() -> None:
    assert sorted(key for key in RunReport.__struct_fields__ if key != "format" and f"`{key}`" not in DOCS) == []
