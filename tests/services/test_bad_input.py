"""Bad input on the command line: one line that names the value, exit code 2, nothing started, nothing written."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services.stack import COMMAND, environment
from tests.services.test_scenarios import SCENARIO

pytestmark = pytest.mark.services


def esplanade(cwd: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    variables = environment({"ESPLANADE_DATA_DIR": str(cwd / "data")} | (env or {}))
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=cwd, env=variables, timeout=120, check=False)


def broken_toml(folder: Path) -> list[str]:
    (folder / "broken.toml").write_text("name = \n")
    return ["run", "broken.toml"]


def unknown_key(folder: Path) -> list[str]:
    (folder / "typo.toml").write_text(SCENARIO.format(people=1, faults="").replace("speed =", "sped ="))
    return ["run", "typo.toml"]


def broken_venue(folder: Path) -> list[str]:
    (folder / "venue.json").write_text('{"id": "x"')
    return ["serve", "--venue", "venue.json"]


CASES: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "a scenario that is nowhere": (lambda _: ["run", "black_fryday"], "invalid: scenario 'black_fryday'"),
    "a scenario that is no TOML": (broken_toml, "invalid: broken.toml: is no TOML"),
    "a key that no scenario has": (unknown_key, "invalid: typo.toml: sped: unknown key; did you mean 'speed'?"),
    "a venue that is no JSON": (broken_venue, "invalid: venue.json"),
    "a negative seed": (lambda _: ["run", "black_friday", "--seed", "-1"], "seed = -1"),
    "a speed below zero": (lambda _: ["run", "black_friday", "--speed", "-1"], "speed = -1"),
    "a tenant with a space": (lambda _: ["serve", "--tenant", "a b"], "invalid: tenant"),
    "an option that does not exist": (lambda _: ["serve", "--fast"], "--fast"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    make, says = CASES[case]
    arguments = make(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    done = esplanade(tmp_path, *arguments)
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert says in said
    assert "Traceback" not in said
    if "--fast" not in arguments:  # usage errors are Typer's, in a frame
        assert len(said.strip().splitlines()) == 1, said
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "nothing was made"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("ESPLANADE_SHARD", "2", "unknown settings ESPLANADE_SHARD"), ("ESPLANADE_SHARDS", "many", "shards = 'many'")],
)
def test_a_bad_setting_is_refused_in_one_line(name: str, value: str, says: str, tmp_path: Path) -> None:
    done = esplanade(tmp_path, "serve", env={name: value})
    said = (done.stdout + done.stderr).strip()
    assert (done.returncode, len(said.splitlines())) == (2, 1), said
    assert says in said
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_as_root_a_data_directory_behind_a_closed_one_is_refused_and_not_opened(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    done = esplanade(tmp_path, "serve", "--data-dir", str(closed / "data"))
    said = (done.stdout + done.stderr).strip()
    assert (done.returncode, len(said.splitlines())) == (2, 1), said
    assert "may not pass through" in said
    assert not (closed / "data").exists()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
