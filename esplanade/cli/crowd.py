"""`esplanade crowd`: walk a scenario, draw what came of it, and hold the engine against RiMEA and laboratory data. It writes only the files that it is asked for."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from esplanade.core.errors import EsplanadeError, InvalidInput

if TYPE_CHECKING:
    from simulation.study import Study
    from simulation.study_spec import CrowdSpec

COMPARED = (
    ("density, people/m²", "density_mean", 2), ("  at most", "density_max", 2), ("level of service (Fruin, waiting)", "service", 0), ("queue", "queue_mean", 1),
    ("  at most", "queue_max", 0), ("wait, s", "wait_mean_s", 1), ("  95 % below", "wait_p95_s", 1), ("stepped on, a minute", "per_minute", 1),
    ("inside", "inside_mean", 1),
)  # fmt: skip

app = typer.Typer(help="Walk crowds, and hold them against reality.", no_args_is_help=True, add_completion=False)
_err = Console(stderr=True)

ScenarioFile = Annotated[Path, typer.Argument(help="Crowd scenario (TOML): ground, goals, people; see docs/crowd.md.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help='Put over the scenario, such as offers.0.place="shoes"; may be repeated.')
]
VenueFile = Annotated[Path | None, typer.Option("--venue", help="Venue document instead of the scenario's.")]
Json = Annotated[bool, typer.Option("--json", help="Last line: the figures as JSON.")]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except EsplanadeError as error:
        _err.print(f"[bold red]{error.code}[/] {escape(error.message)}", soft_wrap=True)
        raise typer.Exit(2) from None


def _spec(scenario: Path, settings: list[str] | None, venue: Path | None) -> CrowdSpec:
    from simulation.study_spec import read_spec

    return read_spec(scenario, [*(settings or []), *([f"venue={str(venue.resolve())!r}"] if venue else [])])


def _write(out: Path, data: bytes) -> None:
    try:
        out.write_bytes(data)
    except OSError as error:
        raise InvalidInput(f"{out}: cannot be written ({error.strerror}); name a file in a folder that is there") from None


@app.command()
def run(
    scenario: ScenarioFile,
    out: Annotated[Path | None, typer.Option(help="Write trajectories: .parquet, or .txt as PedPy and JuPedSim read.")] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads; the result is the same for any number.")] = None,
    settings: Settings = None,
    venue: VenueFile = None,
    animate: Annotated[Path | None, typer.Option(help="Write the run as a page that plays it (.html).")] = None,
    first: Annotated[
        Path | None, typer.Option(help="Write the first moment as a picture (.svg) before anybody walks: is the scenario the one meant?")
    ] = None,
    fields: Annotated[Path | None, typer.Option(help="Write density, speed, flow and level of service by cell of 1 m and minute (.parquet).")] = None,
    as_json: Json = False,
) -> None:
    """Walk a scenario until all have left or its time is over."""
    import psutil

    from simulation.crowd_run import connector_figures, egress_curve, run_crowd
    from simulation.trajectories import save

    with _one_line_errors():
        if out is not None and out.suffix not in (".parquet", ".txt"):
            raise InvalidInput(f"{out}: ends in {out.suffix!r}; must end in .parquet or .txt")
        if animate is not None and animate.suffix != ".html":
            raise InvalidInput(f"{animate}: ends in {animate.suffix!r}; must end in .html")
        if fields is not None and fields.suffix != ".parquet":
            raise InvalidInput(f"{fields}: ends in {fields.suffix!r}; must end in .parquet")
        if first is not None and first.suffix != ".svg":
            raise InvalidInput(f"{first}: ends in {first.suffix!r}; must end in .svg")
        spec = _spec(scenario, settings, venue)
        ready: list[float] = []

        def at_first(study: Study) -> None:
            if first is not None:
                from simulation.crowd_frame import frame_svg

                _write(first, frame_svg(study, title=scenario.stem).encode())
            ready.extend((time.time() - psutil.Process().create_time(), time.process_time(), time.perf_counter()))
            drawn = "" if first is None else f", {first} written"
            gaps = study.setting.too_narrow
            if gaps:
                named = "; ".join(gaps[:5]) + (" ..." if len(gaps) > 5 else "")
                _err.print(
                    f"closed: {len(gaps)} gaps through which no body fits, widen them if they are doors: {named}", highlight=False, soft_wrap=True
                )
            _err.print(f"ready after {ready[0]:.1f} s: {len(study.walkers)} people stand at their start{drawn}", highlight=False)

        outcome = run_crowd(spec, threads=threads, at_first=at_first)
        took_s = time.perf_counter() - ready[2]
        if out is not None:
            save(outcome.recording, out)
        if fields is not None:
            from simulation.crowd_fields import fields as measured
            from simulation.crowd_fields import save_fields

            save_fields(measured(outcome.recording), fields)
        if animate is not None:
            from simulation.crowd_animation import page

            _write(animate, page(outcome, title=scenario.stem).encode())
    report = outcome.report
    half = round(float(outcome.left_s[len(outcome.left_s) // 2]), 2) if len(outcome.left_s) else None
    figures = {
        "added": report.added, "left": report.left, "still_there": report.bodies + report.riding, "time_s": round(report.time_s, 2), "half_left_s": half,
        "egress": egress_curve(outcome),
        "stuck": list(report.stuck), "ever_stuck": report.ever_stuck, "lost": list(report.lost), "max_overlap_m": round(outcome.overlap_m, 4),
        "ready_s": round(ready[0], 2), "ready_cpu_s": round(ready[1], 2), "real_time": round(report.time_s / took_s, 1), "digest": outcome.digest, "came": outcome.study.came, "outside": outcome.study.outside,
        "refused": outcome.study.refused, "services": [asdict(line) for line in outcome.services],
        "connectors": [asdict(figures) for figures in connector_figures(outcome)], "unlinked": list(outcome.study.setting.unlinked),
        "cut_off": list(outcome.study.cut_off), "too_narrow": list(outcome.study.setting.too_narrow),
    }  # fmt: skip
    _err.print(
        f"{report.added} people, {sum(report.left.values())} left in {report.time_s:.1f} s; {len(report.stuck)} stuck, {len(report.lost)} lost; {took_s:.1f} s"
    )
    for written in (first, out, animate, fields):
        if written is not None:
            print(f"written: {written}")
    if as_json:
        print(json.dumps(figures))


@app.command()
def plot(
    scenario: ScenarioFile,
    trajectories: Annotated[Path, typer.Argument(help="Trajectories that `run --out` wrote.")],
    out: Annotated[Path, typer.Option(help="Picture to write (.png).")],
    level: Annotated[int, typer.Option(help="Level to draw.")] = 0,
    settings: Settings = None,
    venue: VenueFile = None,
) -> None:
    """Draw paths, density, speed and the egress curve."""
    from simulation.crowd_drawing import draw_run
    from simulation.study_places import set_up
    from simulation.trajectories import load

    with _one_line_errors():
        levels = set_up(_spec(scenario, settings, venue)).levels
        if not 0 <= level < len(levels):
            raise InvalidInput(f"level {level}; the scenario has levels 0 to {len(levels) - 1}")
        _write(out, draw_run(load(trajectories), levels[level], level=level))
    print(f"written: {out}")


@app.command()
def compare(
    scenario: ScenarioFile,
    other: Annotated[Path | None, typer.Argument(help="The scenario to compare with; the same one where only --set differs.")] = None,
    at: Annotated[
        list[str] | None, typer.Option("--at", help="Connector (lift, escalator, stairs) by id; may be repeated. All of them where not named.")
    ] = None,
    when: Annotated[str | None, typer.Option(help="Time of day (hh:mm) or second to look at; the whole run where not given.")] = None,
    within: Annotated[float, typer.Option(help="Seconds before and after it.")] = 60.0,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Put over the second scenario; may be repeated.")] = None,
    venue: VenueFile = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads; the result is the same for any number.")] = None,
    as_json: Json = False,
) -> None:
    """Run two scenarios and say what differs at a connector: density, level of service, queue, waits."""
    from rich.table import Table

    from simulation.crowd_run import connector_figures, run_crowd
    from simulation.study_spec import seconds_after

    with _one_line_errors():
        if other is None and not settings:
            raise InvalidInput("compare: one scenario and no --set; give a second scenario or what is to be put over the first")
        specs = [_spec(scenario, None, venue), _spec(other or scenario, settings, venue)]
        found = []

        def known(study: Study) -> None:
            """A name that nothing has is refused before minutes are walked for it."""
            for name in at or []:
                study.watch.number(name)

        for name, spec in zip("AB", specs, strict=True):
            window = None
            if when is not None:
                moment = seconds_after(spec.starts, when, "--when")
                if not 0 <= moment <= spec.seconds:
                    raise InvalidInput(f"--when {when}: the scenario runs from {spec.starts} for {spec.seconds:g} s")
                window = moment - within, moment + within
            outcome = run_crowd(spec, threads=threads, at_first=known)
            _err.print(f"{name}: {outcome.report.added} people, {outcome.report.time_s:.0f} s", highlight=False)
            found.append(connector_figures(outcome, names=at, window=window))
    title = "the whole run" if when is None else f"{when}, {within:g} s before and after"
    for a, b in zip(*found, strict=True):
        table = Table("", "A", "B", "change", title=f"{a.id}: {title}", box=None, pad_edge=False, title_justify="left")
        for label, field, digits in COMPARED:
            left, right = getattr(a, field), getattr(b, field)
            change = "" if isinstance(left, str) else f"{right - left:+.{digits}f}"
            table.add_row(label, *(value if isinstance(value, str) else f"{value:.{digits}f}" for value in (left, right)), change)
        Console().print(table)
    if as_json:
        print(json.dumps({"a": [asdict(figures) for figures in found[0]], "b": [asdict(figures) for figures in found[1]]}))


@app.command()
def validate(
    model: Annotated[str, typer.Option(help="collision_free_speed, anticipation_velocity or social_force.")] = "collision_free_speed",
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the real data; ESPLANADE_DATA names it too.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only the tests of a few seconds.")] = False,
    laboratory: Annotated[bool, typer.Option("--laboratory", help="Only the comparison with laboratory data.")] = False,
    parameters: Annotated[
        list[str] | None, typer.Option("--parameter", metavar="NAME=NUMBER", help="Parameter of the model, such as time_gap_s=0.5.")
    ] = None,
    parameter_set: Annotated[str, typer.Option(help="calibrated or published.")] = "calibrated",
    as_json: Json = False,
) -> None:
    """Run RiMEA 1 to 14 and the comparison with laboratory data; exit 1 where a test fails. Takes some minutes."""
    from rich.table import Table

    from simulation.models import model_of
    from simulation.realism import bottlenecks, fundamental_diagram, lanes
    from simulation.rimea import QUICK, TESTS

    with _one_line_errors():
        try:
            numbers = {name: float(value) for name, _, value in (text.partition("=") for text in parameters or [])}
        except ValueError:
            raise InvalidInput(f"--parameter {parameters}: must be name=number, such as time_gap_s=0.5") from None
        chosen = model_of(model, numbers, parameter_set=parameter_set)
        named = os.environ.get("ESPLANADE_DATA")
        folder = data_dir or (Path(named) if named else None)
        verdicts = []
        for name in () if laboratory else QUICK if quick else tuple(TESTS):
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
