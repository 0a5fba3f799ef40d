"""The command `esplanade`. Turns arguments into settings and calls; prints; maps errors to exit codes. Holds no logic of its own.

Exit codes: 0 fine, 1 a threshold or check failed, 2 bad input or settings, 3 something that is needed is away, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from esplanade import __version__
from esplanade.cli.ar import app as ar_app
from esplanade.cli.audit import audit
from esplanade.cli.backup import backup, restore
from esplanade.cli.crowd import app as crowd_app
from esplanade.cli.gateways import app as gateways_app
from esplanade.cli.identities import keys_app, operators_app, revoke
from esplanade.cli.journal import app as journal_app
from esplanade.cli.login import login
from esplanade.cli.options import Config, DataDir
from esplanade.cli.positioning import app as positioning_app
from esplanade.cli.shards import app as shards_app
from esplanade.cli.subject import app as subject_app
from esplanade.cli.venue import app as venue_app
from esplanade.core.errors import EsplanadeError
from esplanade.settings import Settings, load_settings

_cli = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)
_cli.add_typer(venue_app, name="venue", help="Import, draw and check venue plans.")
_cli.add_typer(shards_app, name="shards", help="Say what the shards of a running service do; add, drain and remove them, live.")
_cli.add_typer(gateways_app, name="gateways", help="Put new gateway processes in the place of those that run, live.")
_cli.add_typer(positioning_app, name="positioning", help="Fit radio maps from surveyed walks, and score them.")
_cli.add_typer(crowd_app, name="crowd", help="Walk crowds, draw them, hold them against reality.")
_cli.add_typer(journal_app, name="journal", help="Check the journal, and archive what is old.")
_cli.add_typer(subject_app, name="subject", help="Export or erase what is held about a person.")
_cli.add_typer(keys_app, name="keys", help="Make, list, rotate and revoke API keys; rotate the keys that sign tokens.")
_cli.add_typer(operators_app, name="operators", help="Add and change those who sign in with a password.")
_cli.command()(login)
_cli.command()(revoke)
_cli.add_typer(ar_app, name="ar", help="Build the maps that cameras are localised in, place a camera in one, and fetch packs of a place.")
_cli.command()(audit)
_cli.command()(backup)
_cli.command()(restore)
console = Console()


def _settings(config: Path | None, data_dir: Path | None, **overrides: object) -> Settings:
    return load_settings(config=config, data_dir=data_dir, **overrides)


@_cli.command()
def serve(
    venue: Annotated[list[Path] | None, typer.Option(help="Venue document to open (repeatable); by default our own mall and festival.")] = None,
    tenant: Annotated[str, typer.Option(help="Tenant that the venues belong to.")] = "demo",
    data_dir: DataDir = None,
    config: Config = None,
    gateway_port: Annotated[int | None, typer.Option(help="Port of the gateway; 0 takes a free one.")] = None,
    api_port: Annotated[int | None, typer.Option(help="Port of the API and console; 0 takes a free one.")] = None,
) -> None:
    """Start everything on this machine, print the addresses, run until interrupted."""
    from esplanade.cli.commands import serve_until_stopped

    settings = _settings(config, data_dir, gateway_port=gateway_port, api_port=api_port)
    _leave(asyncio.run(serve_until_stopped(settings, tenant=tenant, venue_files=venue or [], console=console)))


@_cli.command()
def run(
    scenario: Annotated[str, typer.Argument(help="A scenario file, or the name of one in scenarios/library.")],
    venue: Annotated[Path | None, typer.Option(help="Venue document to use instead of the scenario's own.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed to use instead of the scenario's own.")] = None,
    speed: Annotated[
        float | None, typer.Option(help="Venue seconds a second, up to 100, instead of the scenario's own; 0: as fast as it can.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory for the report and the recording; by default runs/<name>-<n>.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Run a scenario against a service started for it; ends with a report. Exit code 1 when a threshold was missed."""
    from esplanade.cli.commands import run_and_report

    settings = _settings(config, data_dir)
    _leave(asyncio.run(run_and_report(settings, scenario, venue=venue, seed=seed, speed=speed, out=out, console=console)))


@_cli.command()
def demo(
    scenario: Annotated[str, typer.Argument(help="Scenario to show.")] = "black_friday",
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Show the main job: a mall fills, offers are pushed, a flash sale pulls, tills ring, and a report says how it went. A few minutes."""
    from esplanade.cli.commands import run_and_report

    settings = _settings(config, data_dir)
    _leave(asyncio.run(run_and_report(settings, scenario, console=console)))


Api = Annotated[str | None, typer.Option("--api", help="Address of the service's API; by default that of the service on the data directory.")]
Token = Annotated[str | None, typer.Option(help="Token of an operator or engineer, where the service does not know this machine.")]
Hot = Annotated[int, typer.Option(min=0, max=100, help="Hottest actors to show.")]


@_cli.command()
def profile(
    seconds: Annotated[float, typer.Option(help="How long to look; 0: tell of the time since the shards started.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    flame: Annotated[Path | None, typer.Option(help="Record a flame graph (SVG) of the shards meanwhile; needs py-spy.")] = None,
    hot: Hot = 10,
    api: Api = None,
    token: Token = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Say what the shards of a running service do: turns, queues, flushes, kinds of actors, and which actors are hot."""
    from esplanade.cli.profile import Observer
    from esplanade.cli.profile import profile as look

    look(
        Observer(_settings(config, data_dir).data_dir, api=api, token=token), seconds=seconds, as_json=as_json, flame=flame, hot=hot, console=console
    )  # fmt: skip


@_cli.command()
def top(hot: Hot = 10, api: Api = None, token: Token = None, data_dir: DataDir = None, config: Config = None) -> None:
    """Show the same live, each second anew, until Ctrl-C."""
    from esplanade.cli.profile import Observer
    from esplanade.cli.profile import top as show

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        show(Observer(_settings(config, data_dir).data_dir, api=api, token=token), hot=hot, console=console)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@_cli.command()
def doctor(data_dir: DataDir = None, config: Config = None) -> None:
    """Say what is missing on this machine and how to mend it."""
    from esplanade.doctor import examine

    table = Table("check", "", "found", "remedy", box=None, pad_edge=False)
    failed = False
    for check in examine(_settings(config, data_dir)):
        failed |= check.state == "failed"
        mark = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failed": "[red]failed[/]"}[check.state]
        table.add_row(check.name, mark, check.found, check.remedy)
    console.print(table)
    raise typer.Exit(1 if failed else 0)


@_cli.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def app() -> None:
    """Entry point: errors of ours become one line and an exit code."""
    signal.signal(signal.SIGINT, _interrupted)  # until a command minds signals itself
    try:
        _cli()
    except EsplanadeError as error:
        console.print(f"[red]{error.code}[/]: {escape(error.message)}", highlight=False, soft_wrap=True)
        sys.exit(3 if error.retryable else 2)


def _leave(code: int) -> NoReturn:
    """End a command that had a service. All of it is stopped by now; on a busy machine Ray's native threads have been seen to abort the interpreter's own ending."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(130)
