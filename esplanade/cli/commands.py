"""What `serve`, `run` and `demo` do: a service around a wait or around a scenario, ended in every case.

Owns signals and what is printed meanwhile. An interrupt cancels whatever is under way; the cluster then stops as it always does.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from esplanade.cluster import Cluster
from esplanade.control import controlled
from esplanade.core.clock import RealClock
from esplanade.core.ids import check_name
from esplanade.service_config import RUNS, ServiceConfig, begin_logs
from esplanade.settings import Settings
from scenarios import runner
from scenarios.rehearsals import Rehearsals
from scenarios.report import RunReport
from scenarios.spec import find_scenario, load_scenario, parse_scenario, venue_path
from spatial.venue import Venue
from spatial.venue_files import dump_venue, load_venue

T = TypeVar("T")

OWN_VENUES = Path(__file__).parent.parent.parent / "scenarios" / "venues"
INTERRUPTED = 130
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def _interruptible(work: Awaitable[T]) -> T | None:
    """The work's result; None if SIGINT, SIGTERM or SIGHUP (the terminal was closed) came first: the work is then cancelled and waited for. A further signal
    does not hurry it."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    interrupted = False

    def stop() -> None:
        nonlocal interrupted
        if not interrupted:  # a second cancel would break into the ending
            interrupted = True
            task.cancel()

    numbers = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup ignores SIGHUP
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if not interrupted:
            raise
        return None
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _running(settings: Settings, console: Console) -> AsyncIterator[tuple[Cluster, ServiceConfig]]:
    cluster = Cluster(settings)
    began = time.monotonic()
    with console.status("starting") as status:
        config = await cluster.start(lambda step: status.update(f"{step} …"))
    begin_logs("service", config)
    try:
        _print_addresses(console, config)
        console.print(f"[green]ready[/] after {time.monotonic() - began:.1f} s", highlight=False)
        yield cluster, config
    finally:
        with console.status("stopping …"):
            await asyncio.shield(cluster.stop())


async def serve_until_stopped(settings: Settings, *, tenant: str, venue_files: list[Path], console: Console) -> int:
    """`esplanade serve`. Returns the exit code: 0 when it was stopped, 130 when that came before it was ready."""
    check_name(tenant, "tenant")
    venues = [load_venue(path) for path in venue_files or sorted(OWN_VENUES.glob("*.json"))]

    exit_code = INTERRUPTED

    async def work() -> None:
        nonlocal exit_code
        async with _running(settings, console) as (cluster, _):
            for venue in venues:
                await cluster.put_venue(tenant, dump_venue(venue))
            for lacking in settings.answers.lacking(await cluster.tenants()):
                console.print(f"[yellow]note[/] {escape(lacking)}", highlight=False, soft_wrap=True)
            rehearsals = Rehearsals(cluster.services, settings.data_dir.expanduser().resolve() / RUNS, RealClock())
            try:
                async with controlled(cluster, settings.data_dir, rehearsals):
                    console.print("Ctrl-C stops it.")
                    exit_code = 0
                    await cluster.watch(_telling(console))
            finally:
                await rehearsals.close()

    await _interruptible(work())
    return exit_code


async def _watched(cluster: Cluster, console: Console, work: Coroutine[None, None, T]) -> T:
    """The work's result, while the cluster is minded; raises what ends the cluster first."""
    tasks = (asyncio.ensure_future(work), asyncio.ensure_future(cluster.watch(_telling(console))))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[1].done():
            await tasks[1]
        return await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _telling(console: Console) -> Callable[[str], None]:
    return lambda news: console.print(f"[yellow]{escape(news)}[/]", highlight=False, soft_wrap=True)


def _print_addresses(console: Console, config: ServiceConfig) -> None:
    console.print(f"console  [bold]{config.api_url}[/]", highlight=False)
    console.print(f"gateway  {config.ws_url}", highlight=False)
    console.print(f"metrics  {config.api_url}metrics", highlight=False)
    if config.messages is not None:
        channels = " and ".join(name for name, provider in (("e-mail", config.smtp), ("SMS", config.sms)) if provider is None)
        console.print(
            f"codes    sign-in codes over {channels} are simulated: nobody gets one, {config.messages} does", highlight=False, soft_wrap=True
        )


async def run_and_report(
    settings: Settings,
    name: str,
    *,
    venue: Path | None = None,
    seed: int | None = None,
    speed: float | None = None,
    out: Path | None = None,
    console: Console,
) -> int:
    """`esplanade run` and `esplanade demo`. Returns the exit code: 0 when every threshold held, 1 when one was missed."""
    file = find_scenario(name)
    scenario = load_scenario(file)
    changes = {key: value for key, value in (("seed", seed), ("speed", speed)) if value is not None}
    if changes:
        scenario = parse_scenario(
            scenario.model_dump() | changes, where=f"{file} with {' '.join(f'--{key} {value}' for key, value in changes.items())}"
        )
    plan: Venue = load_venue(venue_path(scenario, scenario_file=file, override=venue))
    folder = out or _next_folder(scenario.name)

    async def work() -> RunReport:
        async with _running(settings, console) as (cluster, config):
            run = f"{scenario.name}-{time.time_ns() // 1_000_000:x}".replace("_", "-")
            console.print(f"watch    [bold]{config.api_url}#/operator/{run}/{plan.id}[/]", highlight=False, soft_wrap=True)
            services = await cluster.services()
            with _progress(console) as bar:
                return await _watched(
                    cluster, console, runner.run_scenario(scenario, venue=plan, services=services, out_dir=folder, run=run, progress=bar)
                )

    report = await _interruptible(work())
    if report is None:
        console.print("interrupted; nothing is left running")
        return INTERRUPTED
    _print_outcome(console, report, folder)
    return 0 if report.held else 1


class _Bar:
    """Progress of a run, as a line that renews itself."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task("prepare", total=1.0, numbers="")
        self._phase = ""

    def __call__(self, now: runner.Progress) -> None:
        if now.phase != self._phase:
            self._phase = now.phase
            self._bars.reset(self._task, total=1.0)
        numbers = f"{now.people:,} people  {now.pushes:,} pushes  {now.payments:,} payments" if now.people else ""
        self._bars.update(self._task, completed=now.share, description=now.doing, numbers=numbers)


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[_Bar]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[numbers]}"),
    )
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as bars:
        yield _Bar(bars)


def _print_outcome(console: Console, report: RunReport, folder: Path) -> None:
    for threshold in report.thresholds:
        mark = "[green]held[/]  " if threshold.held else "[red]missed[/]"
        console.print(f"{mark} {threshold.metric} {threshold.op} {threshold.value:g}: {threshold.measured:,.6g} {threshold.unit}", highlight=False)
    for fact in report.facts:
        console.print(f"  {fact}", highlight=False)
    for warning in report.warnings:
        console.print(f"[yellow]note[/] {warning}", highlight=False)
    console.print(f"hash     {report.hash.hex if report.hash.void is None else 'void: ' + report.hash.void}", highlight=False, soft_wrap=True)
    console.print(f"report   {folder / 'report.html'}", highlight=False, soft_wrap=True)
    console.print("[bold green]It held.[/]" if report.held else "[bold red]It did not hold.[/]")


def _next_folder(name: str) -> Path:
    number = 1
    while (folder := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return folder
