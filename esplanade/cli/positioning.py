"""`esplanade positioning`: fit a site's model, score it on walks, cross-validate, plot a walk, say where to survey next, publish its map, walk phones through it. It writes only the file that it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from esplanade.cli.positioning_live import drill, publish, simulate
from esplanade.cli.positioning_tables import fingerprints
from esplanade.core.errors import EsplanadeError, InvalidInput, NotFound

if TYPE_CHECKING:
    from spatial.positioning.ground import Floor
    from spatial.positioning.score import Marks, Surveyed

app = typer.Typer(help="Radio maps and where phones are.", no_args_is_help=True, add_completion=False)
_err = Console(stderr=True)

app.command()(publish)
app.command()(simulate)
app.command()(drill)
app.command()(fingerprints)

SiteDir = Annotated[Path, typer.Argument(help="Folder of a site: a folder a floor with the plan and surveyed walks (.txt or .tar.xz).")]
ModelFile = Annotated[Path, typer.Argument(help="Model written by `fit`.")]
Json = Annotated[bool, typer.Option("--json", help="Last line: the figures as JSON.")]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except EsplanadeError as error:
        _err.print(f"[bold red]{error.code}[/] {escape(error.message)}", soft_wrap=True)
        raise typer.Exit(2) from None


@app.command()
def fit(
    site_dir: SiteDir,
    out: Annotated[Path, typer.Option(help="Where to write the model.")],
    update: Annotated[Path | None, typer.Option(help="Model to add the folder's walks to, instead of fitting from them alone.")] = None,
) -> None:
    """Fit a site's radio map and what the survey teaches; calibrate its regions on walks left out in turn. With --update: add new walks to a model, find vanished access points."""
    from spatial.positioning.digest import digest_of
    from spatial.positioning.model import load_model, save_model
    from spatial.positioning.score import fit_calibrated
    from spatial.positioning.update import update as add_walks

    with _one_line_errors():
        if update is None:
            floors = _floors(site_dir)
            walks = _read(site_dir)
            fitted = fit_calibrated(site_dir.resolve().name, floors, walks)
            model = replace(fitted, digest=digest_of(floors, walks))
        else:
            done = add_walks(load_model(update), _read(site_dir))
            model = done.model
            _err.print(f"{done.added} walks added, {done.known} were in it; {len(done.came)} transmitters came, {len(done.vanished)} vanished")
            if done.doubted:
                _err.print(
                    f"{done.doubted} transmitters that should be heard are not: too many to be believed, so they stay; was a band switched off?"
                )
        size = save_model(model, out)
    _err.print(
        f"version {model.version}: {model.walks} walks, {len(model.radio.transmitters)} transmitters ({model.radio.dropped}), {len(model.radio.norm)} cells, {size / 1e6:.2f} MB"
    )
    print(f"written: {out}")


@app.command()
def score(model: ModelFile, walks_dir: Annotated[Path, typer.Argument(help="Folder with a folder a floor of walks.")], as_json: Json = False) -> None:
    """Locate every walk and compare with its surveyed waypoints."""
    from spatial.positioning.model import load_model
    from spatial.positioning.score import score as score_walks

    with _one_line_errors():
        loaded = load_model(model)
        walks = _read(walks_dir)
        n, causal, smoothed = score_walks(loaded, walks)
    _report(n, causal, smoothed, as_json)


@app.command()
def crossval(
    site_dir: SiteDir,
    seed: Annotated[int, typer.Option(help="Chooses the walks that are left out.")] = 7,
    share: Annotated[float, typer.Option(min=0.05, max=0.5, help="Share of the walks of each floor that is left out.")] = 0.25,
    as_json: Json = False,
) -> None:
    """Fit without a share of the walks, locate those, compare with their waypoints."""
    from spatial.positioning.score import fit_calibrated, split_by_walk
    from spatial.positioning.score import score as score_walks

    with _one_line_errors():
        floors = _floors(site_dir)
        kept, held = split_by_walk(_read(site_dir), seed=seed, share=share)
        n, causal, smoothed = score_walks(fit_calibrated(site_dir.resolve().name, floors, kept), held)
    _report(n, causal, smoothed, as_json)


@app.command()
def plot(
    model: ModelFile, walk: Annotated[Path, typer.Argument(help="A walk (.txt).")], out: Annotated[Path, typer.Option(help="PNG to write.")]
) -> None:
    """Draw a walk over the ground: surveyed truth where there is one, causal and smoothed estimate, 90 % regions."""
    from spatial.positioning.drawing import draw_walk
    from spatial.positioning.model import load_model
    from spatial.positioning.walk_files import parse_walk
    from spatial.venue_files import write_whole

    with _one_line_errors():
        if not walk.is_file():
            raise NotFound(f"{walk}: no such file; give a walk in the traces' text format")
        write_whole(out, draw_walk(load_model(model), parse_walk(walk.read_bytes(), name=walk.stem)))
    print(f"written: {out}")


@app.command()
def survey(
    site_dir: SiteDir, reach_m: Annotated[float, typer.Option(min=1, max=100, help="A place is covered when a survey path lies this near.")] = 5.0
) -> None:
    """How much of each floor's walkway the survey covers, and the middles of the largest gaps: walk there next."""
    from spatial.positioning.coverage import coverage

    with _one_line_errors():
        for row in coverage(_floors(site_dir), _read(site_dir), reach_m=reach_m):
            gaps = ", ".join(f"({x:.0f}, {y:.0f}) {area:.0f} m2" for x, y, area in row.gaps)
            print(f"{row.floor}: {row.walks} walks, {row.share:.0%} of {row.walkway_m2:.0f} m2 within {reach_m:g} m; next: {gaps or 'nothing'}")


def _floors(site_dir: Path) -> tuple[Floor, ...]:
    from spatial.importers.malls import read_site
    from spatial.positioning.ground import floors_of

    return floors_of(read_site(site_dir).venue)


def _read(folder: Path) -> list[Surveyed]:
    from spatial.positioning.model import prepare
    from spatial.positioning.walk_files import read_walks

    walks: list[Surveyed] = []
    broken = jumps = 0
    for walk in read_walks(folder):
        walks.append((prepare(walk), walk.floor, walk.waypoints))
        broken += walk.account.broken + walk.account.out_of_range
        jumps += walk.account.clock_jumps
    if not walks:
        raise InvalidInput(f"{folder}: no walks; put .txt or .tar.xz traces into a folder a floor")
    _err.print(f"{len(walks)} walks read, {broken} broken lines, {jumps} clock jumps")
    return walks


def _report(n: int, causal: Marks, smoothed: Marks, as_json: bool) -> None:
    prompt = causal.prompt()
    late = causal.late_s[causal.late_s > 0]
    if len(late):
        _err.print(
            f"causal: {len(late)} of {len(causal.error_m)} waypoints lie before the phone's first fix and are answered late "
            f"(median {float(sorted(late)[len(late) // 2]):.1f} s); mean of the others {prompt.summary()['mean_m']} m, of the late ones {causal.error_m[causal.late_s > 0].mean():.3f} m"
        )
    result = {"walks": n, "waypoints": len(causal.error_m), "causal": causal.summary(), "smoothed": smoothed.summary()}
    if not as_json:
        for name, marks in (("causal", causal), ("smoothed", smoothed)):
            print(name, " ".join(f"{key}={value}" for key, value in marks.summary().items()))
        return
    print(json.dumps(result))
