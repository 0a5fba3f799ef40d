"""`esplanade crowd`: walk a scenario, draw what came of it, and hold the engine against RiMEA and laboratory data. It writes only the files that it is asked for."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from esplanade.core.errors import EsplanadeError, InvalidInput

app = typer.Typer(help="Walk crowds, and hold them against reality.", no_args_is_help=True, add_completion=False)
_err = Console(stderr=True)

ScenarioFile = Annotated[Path, typer.Argument(help="Crowd scenario (TOML): ground, goals, people; see docs/crowd.md.")]
Json = Annotated[bool, typer.Option("--json", help="Last line: the figures as JSON.")]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except EsplanadeError as error:
        _err.print(f"[bold red]{error.code}[/] {escape(error.message)}", soft_wrap=True)
        raise typer.Exit(2) from None


@app.command()
def run(
    scenario: ScenarioFile,
    out: Annotated[Path | None, typer.Option(help="Write trajectories: .parquet, or .txt as PedPy and JuPedSim read.")] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads; the result is the same for any number.")] = None,
    as_json: Json = False,
) -> None:
    """Walk a scenario until all have left or its time is over."""
    from simulation.crowd_run import read_spec, run_crowd
    from simulation.trajectories import save

    with _one_line_errors():
        if out is not None and out.suffix not in (".parquet", ".txt"):
            raise InvalidInput(f"{out}: ends in {out.suffix!r}; must end in .parquet or .txt")
        spec = read_spec(scenario)
        began = time.perf_counter()
        outcome = run_crowd(spec, threads=threads)
        took_s = time.perf_counter() - began
        if out is not None:
            save(outcome.recording, out)
    report = outcome.report
    half = float(outcome.left_s[len(outcome.left_s) // 2]) if len(outcome.left_s) else None
    figures = {
        "added": report.added, "left": report.left, "still_there": report.bodies + report.riding, "time_s": round(report.time_s, 2), "half_left_s": half,
        "stuck": list(report.stuck), "ever_stuck": report.ever_stuck, "lost": list(report.lost), "max_overlap_m": round(outcome.overlap_m, 4),
        "real_time": round(report.time_s / took_s, 1), "digest": outcome.digest,
    }  # fmt: skip
    _err.print(
        f"{report.added} people, {sum(report.left.values())} left in {report.time_s:.1f} s; {len(report.stuck)} stuck, {len(report.lost)} lost; {took_s:.1f} s"
    )
    if out is not None:
        print(f"written: {out}")
    if as_json:
        print(json.dumps(figures))


@app.command()
def plot(
    scenario: ScenarioFile,
    trajectories: Annotated[Path, typer.Argument(help="Trajectories that `run --out` wrote.")],
    out: Annotated[Path, typer.Option(help="Picture to write (.png).")],
    level: Annotated[int, typer.Option(help="Level to draw.")] = 0,
) -> None:
    """Draw paths, density, speed and the egress curve."""
    from simulation.crowd_drawing import draw_run
    from simulation.crowd_run import ground_of, read_spec
    from simulation.trajectories import load

    with _one_line_errors():
        spec = read_spec(scenario)
        if not 0 <= level < len(spec.ground):
            raise InvalidInput(f"level {level}; the scenario has levels 0 to {len(spec.ground) - 1}")
        picture = draw_run(load(trajectories), ground_of(spec, level), level=level)
        try:
            out.write_bytes(picture)
        except OSError as error:
            raise InvalidInput(f"{out}: cannot be written ({error.strerror}); name a file in a folder that is there") from None
    print(f"written: {out}")


@app.command()
def validate(
    model: Annotated[str, typer.Option(help="collision_free_speed, anticipation_velocity or social_force.")] = "collision_free_speed",
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the real data; ESPLANADE_DATA names it too.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only the tests of a few seconds.")] = False,
    as_json: Json = False,
) -> None:
    """Run RiMEA 1 to 14 and the comparison with laboratory data; exit 1 where a test fails. Takes some minutes."""
    from rich.table import Table

    from simulation.crowd_run import MODELS
    from simulation.realism import bottlenecks, fundamental_diagram, lanes
    from simulation.rimea import QUICK, TESTS

    with _one_line_errors():
        if model not in MODELS:
            raise InvalidInput(f"model {model!r}: there are {', '.join(MODELS)}")
        chosen = MODELS[model]()
        named = os.environ.get("ESPLANADE_DATA")
        folder = data_dir or (Path(named) if named else None)
        verdicts = []
        for name in QUICK if quick else tuple(TESTS):
            verdicts.append(TESTS[name](chosen, 1))
            _err.print(f"RiMEA {verdicts[-1].test}", highlight=False)
        if not quick:
            verdicts += [*fundamental_diagram(chosen, folder), *bottlenecks(chosen, folder), lanes(chosen)]
    table = Table("test", "", "measured", "criterion", box=None, pad_edge=False)
    for verdict in verdicts:
        mark = {True: "[green]passed[/]", False: "[red]failed[/]", None: "shown"}[verdict.passed]
        table.add_row(verdict.test, mark, escape(verdict.measured), escape(verdict.criterion))
    Console().print(table)
    if as_json:
        print(json.dumps([{"test": v.test, "measured": v.measured, "criterion": v.criterion, "passed": v.passed} for v in verdicts]))
    if any(verdict.passed is False for verdict in verdicts):
        raise typer.Exit(1)
