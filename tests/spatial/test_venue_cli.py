"""`esplanade venue import|show|check`: what it says, its exit codes, and that it leaves nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from esplanade.cli.venue import app
from scenarios.venues import make_mall
from spatial.venue_files import load_venue
from tests.spatial.sites import write_site


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_import_says_what_became_of_the_plan_and_writes_the_venue(tmp_path: Path) -> None:
    site, out = write_site(tmp_path / "site"), tmp_path / "v.json"
    result = run("import", site, "--out", out, "--verbose")
    assert result.exit_code == 0, result.output
    for part in ("rejected: 3", "same outline as books", "east_entrance", "1 linked", "errors"):
        assert part in result.output
    assert load_venue(out).id == "site"


def test_import_of_what_is_no_site_says_one_line_and_writes_nothing(tmp_path: Path) -> None:
    result = run("import", tmp_path / "none", "--out", tmp_path / "v.json")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "no such folder" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_import_refuses_to_write_into_the_source(tmp_path: Path) -> None:
    site = write_site(tmp_path / "site")
    assert run("import", site, "--out", site / "v.json").exit_code == 2
    assert not (site / "v.json").exists()


@pytest.mark.parametrize("level", ["L1", "2"])
@pytest.mark.parametrize("ending", ["svg", "png"])
def test_show_draws_a_level_by_id_or_number(tmp_path: Path, level: str, ending: str) -> None:
    out = tmp_path / f"l.{ending}"
    assert run("show", make_mall.PATH, "--level", level, "--out", out).exit_code == 0
    assert out.stat().st_size > 10_000


@pytest.mark.parametrize(("level", "name", "message"), [("L9", "x.svg", "P, L0, L1, L2"), ("²", "x.svg", "P, L0"), ("L1", "x.gif", ".svg or .png")])
def test_show_refuses_a_wrong_level_or_ending(tmp_path: Path, level: str, name: str, message: str) -> None:
    result = run("show", make_mall.PATH, "--level", level, "--out", tmp_path / name)
    assert result.exit_code == 2
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_check_exits_1_on_errors_only(tmp_path: Path) -> None:
    assert run("check", make_mall.PATH).exit_code == 0
    broken = load_venue(make_mall.PATH)
    path = tmp_path / "v.json"
    path.write_text(broken.model_copy(update={"entrances": ()}).model_dump_json())
    result = run("check", path)
    assert result.exit_code == 1
    assert "no_entrance" in result.output
    assert run("check", tmp_path / "none.json").exit_code == 2
