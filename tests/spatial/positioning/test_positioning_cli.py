"""The command: fit, score, crossval, plot and survey on a small site in the malls' format, with walks made by arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from esplanade.cli.positioning import app
from tests.spatial.positioning import synthetic
from tests.spatial.sites import write_site

LEGS = np.array([[14.0, 15.0], [30.0, 15.0], [46.0, 15.0]])


def test_fit_score_plot_and_survey_work_on_an_unseen_site(tmp_path: Path) -> None:
    site = write_site(tmp_path / "site")
    for i in range(6):
        legs = LEGS[:: -1 if i % 2 else 1] + np.random.default_rng(i).uniform(-1, 1, (3, 2))
        (site / "F1" / f"walk{i}.txt").write_bytes(synthetic.trace(legs, seed=i))
    held = tmp_path / "held" / "F1"
    held.mkdir(parents=True)
    (held / "new.txt").write_bytes(synthetic.trace(LEGS, seed=77))
    runner = CliRunner()
    model = str(tmp_path / "model")

    fitted = runner.invoke(app, ["fit", str(site), "--out", model])
    assert fitted.exit_code == 0, fitted.output
    scored = runner.invoke(app, ["score", model, str(tmp_path / "held"), "--json"])
    assert scored.exit_code == 0, scored.output
    figures = json.loads(scored.stdout.splitlines()[-1])
    assert list(figures) == ["walks", "waypoints", "causal", "smoothed"]
    assert list(figures["smoothed"]) == ["mean_m", "median_m", "p95_m", "floor", "calibration_90"]
    assert (figures["walks"], figures["waypoints"]) == (1, 3)
    assert figures["smoothed"]["floor"] == 1.0

    updated = runner.invoke(app, ["fit", str(tmp_path / "held"), "--update", model, "--out", model + "2"])
    assert updated.exit_code == 0, updated.output
    assert "1 walks added, 0 were in it" in updated.output
    assert "version 2: 7 walks" in updated.output

    drawn = runner.invoke(app, ["plot", model, str(held / "new.txt"), "--out", str(tmp_path / "walk.png")])
    assert drawn.exit_code == 0, drawn.output
    assert (tmp_path / "walk.png").read_bytes().startswith(b"\x89PNG")
    surveyed = runner.invoke(app, ["survey", str(site)])
    assert "F1: 6 walks" in surveyed.output


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["score", str(tmp_path / "none"), str(tmp_path)])
    assert result.exit_code == 2
    assert "no such file" in result.output
