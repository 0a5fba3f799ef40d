"""`esplanade venue`: import a site's plan, show a level, check a venue. It writes only the file that it is asked for, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from esplanade.core.errors import EsplanadeError, InvalidInput
from spatial.importers.account import ImportSummary
from spatial.venue import Venue
from spatial.venue_files import load_venue, save_venue, write_whole

if TYPE_CHECKING:
    from spatial.checks import Finding

app = typer.Typer(help="Import, draw and check venues.", no_args_is_help=True, add_completion=False)
_out = Console()
_err = Console(stderr=True)

_SHOWN = 12


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except EsplanadeError as error:
        _err.print(f"[bold red]{error.code}[/] {escape(error.message)}", soft_wrap=True)
        raise typer.Exit(2) from None


@app.command("import")
def import_site(
    site_dir: Annotated[Path, typer.Argument(help="Folder of a site: a folder a floor (B1, F1, ...) with geojson_map.json and floor_info.json.")],
    out: Annotated[Path, typer.Option(help="Where to write the venue document (JSON).")],
    overlay: Annotated[Path | None, typer.Option(help="TOML or JSON that says what the plan leaves open (docs/venues.md).")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List every rejected feature, note and finding.")] = False,
) -> None:
    """Read a mall's plan, say what became of every feature, check the result, write it."""
    from spatial.checks import check_venue
    from spatial.importers.malls import read_site

    with _one_line_errors():
        if out.resolve().is_relative_to(site_dir.resolve()) and site_dir.is_dir():
            raise InvalidInput(f"{out}: lies inside the site's folder; write the venue elsewhere")
        result = read_site(site_dir, overlay)
        save_venue(result.venue, out)
    _print_account(result.venue, result.summary, verbose)
    _print_findings(check_venue(result.venue), verbose)
    _out.print(f"written: {escape(str(out))}", soft_wrap=True)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="Venue document.")],
    level: Annotated[str, typer.Option(help="Id of the level, or its number from the lowest (0, 1, ...).")],
    out: Annotated[Path, typer.Option(help="Picture to write: .svg or .png.")],
) -> None:
    """Draw one level to SVG or PNG."""
    from spatial.drawing import draw

    with _one_line_errors():
        kind = out.suffix.lower().lstrip(".")
        if kind not in ("svg", "png"):
            raise InvalidInput(f"{out}: ending {out.suffix!r}; must be .svg or .png")
        venue = load_venue(file)
        write_whole(out, draw(venue, _level_index(venue, level), kind="svg" if kind == "svg" else "png"))
    _out.print(f"written: {escape(str(out))}", soft_wrap=True)


@app.command()
def check(file: Annotated[Path, typer.Argument(help="Venue document.")]) -> None:
    """List what is wrong in a plan: feature, rule, remedy. Exit code 1 where there are errors."""
    from spatial.checks import check_venue

    with _one_line_errors():
        findings = check_venue(load_venue(file))
    _print_findings(findings, verbose=True)
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


def _level_index(venue: Venue, level: str) -> int:
    ids = [each.id for each in venue.levels]
    if level in ids:
        return ids.index(level)
    if level.isascii() and level.isdigit() and int(level) < len(ids):
        return int(level)
    raise InvalidInput(f"level {level!r}: venue {venue.id} has {', '.join(ids)} (or 0 to {len(ids) - 1})")


def _print_account(venue: Venue, summary: ImportSummary, verbose: bool) -> None:
    table = Table(title=f"{escape(venue.name)}: what became of the plan", box=box.SIMPLE, padding=(0, 1))
    for heading in ("level", "read", "imported", "merged", "rejected", "shops", "vacant", "doors", "main m²", "pieces"):
        table.add_column(heading, justify="left" if heading == "level" else "right")
    for row in summary.levels:
        counts = (row.read, row.imported, row.merged, row.rejected, row.shops, row.vacant, row.openings)
        table.add_row(escape(row.level), *(f"{count:,}" for count in counts), f"{row.largest_m2:,.0f}", str(row.pieces))
    table.add_row("all", f"{summary.read:,}", f"{summary.imported:,}", f"{summary.merged:,}", f"{len(summary.rejected):,}", *[""] * 5, style="bold")
    _out.print(table)
    for link in summary.links:
        _out.print(f"{link.kind}: {', '.join(map(str, link.counts))} linked between consecutive levels")
    if venue.entrances:
        _out.print(f"entrances: {', '.join(entrance.code for entrance in venue.entrances)}")
    _out.print(f"source metres fit the venue frame within {summary.fit_error_m * 1000:.1f} mm")
    _list("rejected", [f"{r.level} {r.feature_id} {r.name or 'unnamed'}: {r.rule}; {r.remedy}" for r in summary.rejected], verbose)
    _list("notes", [f"{n.level} {n.feature_id} {n.message}" for n in summary.notes], verbose)


def _print_findings(findings: list[Finding], verbose: bool) -> None:
    _list("findings", [f"{f.severity} {f.feature_id} [{f.rule}] {f.message}; {f.remedy}" for f in findings], verbose)
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = sum(finding.severity == "warning" for finding in findings)
    _out.print(f"{errors} errors, {warnings} warnings", style="bold red" if errors else "bold green")


def _list(title: str, lines: list[str], verbose: bool) -> None:
    if not lines:
        return
    _out.print(f"\n{title}: {len(lines)}", style="bold")
    for line in lines if verbose else lines[:_SHOWN]:
        _out.print(f"  {escape(line)}", soft_wrap=True)
    if not verbose and len(lines) > _SHOWN:
        _out.print(f"  ... and {len(lines) - _SHOWN} more (--verbose lists them)")
