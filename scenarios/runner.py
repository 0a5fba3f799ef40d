"""Runs a scenario against running services and says how it went.

Owns the order of a run: tenant, venue, offers, load, faults, drain, evidence, judgement. Every run has a tenant of its own, so runs never mix. Leaves no process behind, however
it ends. Never wires services together: the composition root hands them in as `Services`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np

from esplanade import __version__
from esplanade.core.clock import TICK_S, SystemClock, ticks
from esplanade.core.errors import Conflict, EsplanadeError, InvalidInput
from esplanade.core.ids import Address, check_name
from esplanade.storage.catalogue import Catalogue
from esplanade.storage.journal import Journal
from gateway.auth import Signer
from gateway.client import Client
from scenarios.books import Books, Fold, acked_in, check_books
from scenarios.hashing import Facts, RunHash, read_journal
from scenarios.oracle import Comparison, Findings, Pushes, compare, find
from scenarios.recording import Manifest, Recording
from scenarios.recording_tee import RecordingTee
from scenarios.report import (
    Durations,
    FaultResult,
    OfferCount,
    OracleResult,
    ProcessResult,
    RunReport,
    Sample,
    ShardSample,
    density,
    judge,
    save_json,
    verdict,
)
from scenarios.report_html import save_html
from scenarios.spec import Fault, Scenario
from simulation.load import LAG_ALARM_MS, LoadPlan, ParkingPlan
from simulation.load_feed import NAME as FEED
from simulation.load_histogram import DurationHistogram
from simulation.load_process import SETTLED, Finished, Measured, Ready, Told
from simulation.load_run import LoadRun
from spatial.offers import Everyone, Offer
from spatial.venue import Venue

OPERATOR_SUBJECT: Final = 2**32 - 1
TOKEN_TTL_S: Final = 48 * 3600.0
MAX_SAMPLES: Final = 90_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What a run needs of the services, given by the composition root.

    signing_seed: 32 bytes of the catalogue's signing key; load processes make their people's tokens with it.
    profile: counters of every shard. start_recording(tenant, venue, folder), finish_recording(tenant, venue): the gateways' tee (`local_recording`).
    kill_shard(address): SIGKILL to the process that hosts an address; returns its name. None where faults cannot be made.
    versions: of servers and packages, for the report.
    """

    ws_url: str
    signing_seed: bytes
    catalogue: Catalogue
    journal: Journal
    clock: SystemClock
    profile: Callable[[], Awaitable[list[dict[str, object]]]]
    start_recording: Callable[[str, str, Path], Awaitable[None]]
    finish_recording: Callable[[str, str], Awaitable[Manifest]]
    kill_shard: Callable[[Address], Awaitable[str]] | None = None
    versions: dict[str, str] = field(default_factory=dict)


def local_recording(tee: RecordingTee) -> tuple[Callable[[str, str, Path], Awaitable[None]], Callable[[str, str], Awaitable[Manifest]]]:
    """(start, finish) for `Services` where the gateway that holds the tee runs in this process."""

    async def start(tenant: str, venue: str, folder: Path) -> None:
        tee.start(tenant, venue, folder)

    async def finish(tenant: str, venue: str) -> Manifest:
        return await asyncio.to_thread(tee.finish, tenant, venue)

    return start, finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands. `share` of the phase, 0 to 1; counters so far."""

    phase: Literal["prepare", "run", "drain", "judge"]
    doing: str
    share: float
    tick: int = 0
    people: int = 0
    connected: int = 0
    pushes: int = 0
    payments: int = 0
    lag_p99_ms: float = 0.0


async def run_scenario(
    scenario: Scenario,
    *,
    venue: Venue,
    services: Services,
    out_dir: Path,
    run: str,
    progress: Callable[[Progress], None],
) -> RunReport:
    """Run a scenario to its end and write report.json, report.html, recording/ and load/ into `out_dir`.

    run: the tenant's name, never used before. Raises InvalidInput for a scenario that does not fit the venue, Conflict for a run or folder used before, Unavailable
    and Fault where the services or the load generator fail. On cancellation the children end and nothing is written but what was recorded.
    """
    return await _Run(scenario, venue, services, out_dir, check_name(run, "run"), progress).run()


class _Run:
    def __init__(self, scenario: Scenario, venue: Venue, services: Services, out: Path, tenant: str, progress: Callable[[Progress], None]) -> None:
        self.scenario, self.venue, self.services, self.out, self.tenant, self.progress = scenario, venue, services, out, tenant, progress
        self.offers = scenario.offers_in(venue)
        self.signer = Signer(services.signing_seed)
        self.names: set[str] = set()
        self.measured: dict[str, Measured] = {}
        self.finished: dict[str, Finished] = {}
        self.samples: list[Sample] = []
        self.faults: list[FaultResult] = []
        self.warnings: list[str] = []
        self.shards: tuple[dict[str, object], ...] = ()
        self.tick_ms = 0.0
        self.closed = 0
        self.epoch = 0
        self.closed_event = asyncio.Event()
        self.start_ns = 0
        self.ready: set[str] = set()

    # --- the order of a run -------------------------------------------------------------------------------------------

    async def run(self) -> RunReport:
        services, scenario = self.services, self.scenario
        if scenario.faults and services.kill_shard is None:
            raise InvalidInput(f"{scenario.name}: faults are asked for, and these services cannot kill a shard; remove the faults or run embedded")
        started_unix_ms, began = services.clock.unix_ms(), time.monotonic()
        plan = self._plan()
        self._make_folders()
        self._tell("prepare", "opening the venue", 0.0)
        if self.tenant in await services.catalogue.tenants():
            raise Conflict(f"run {self.tenant!r}: a tenant of this name is there already; give each run a name of its own")
        await services.catalogue.add_tenant(self.tenant, scenario.title)
        await services.catalogue.put_venue(self.tenant, plan.document)
        load = LoadRun(plan)
        self.names = set(load.names)
        token = self.signer.issue(OPERATOR_SUBJECT, self.tenant, "operator", None, TOKEN_TTL_S, services.clock.unix_ms() / 1000)
        operator = await Client.connect(services.ws_url, client="runner", token=token, venue=self.venue.id, reconnects=40, on_event=self._on_event)
        recording = False
        tasks: list[asyncio.Task[None]] = []
        try:
            for offer in self.offers:
                await operator.request("create_offer", venue=self.venue.id, offer=_plain(offer))
            await services.start_recording(self.tenant, self.venue.id, self.out / "recording")
            recording = True
            load.start()
            messages = load.messages()
            async for message in messages:
                if isinstance(message, Told):
                    self._tell("prepare", message.doing, message.share)
                elif isinstance(message, Ready):
                    self.ready.add(message.process)
                    if self.ready == self.names:
                        break
            await operator.subscribe(f"venue/{self.venue.id}/clock", rate_hz=10.0)
            await operator.subscribe(f"venue/{self.venue.id}/stats", rate_hz=1.0)
            self.start_ns = load.go()
            tasks = [asyncio.create_task(self._sample())] + [asyncio.create_task(self._fault(fault)) for fault in scenario.faults]
            async for message in messages:
                if isinstance(message, Measured):
                    self.measured[message.process] = message
                    if message.process == FEED:
                        self._tell_measured()
                elif isinstance(message, Finished):
                    self.finished[message.process] = message
                    if self.finished.keys() == self.names:
                        break
            await load.stop()
            await asyncio.gather(*tasks[1:])
            self._tell("drain", "reading the books", 0.0)
            told = await operator.request("get_books")
            self.shards = tuple(msgspec.json.decode(msgspec.json.encode(p)) for p in await services.profile())  # as the report file gives it back
            manifest = await services.finish_recording(self.tenant, self.venue.id)
            recording = False
            report = await self._judge(manifest, told, started_unix_ms, began)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await load.stop()
            await operator.close()
            if recording:
                with contextlib.suppress(EsplanadeError):  # the first failure is the one to show
                    await services.finish_recording(self.tenant, self.venue.id)
        save_json(report, self.out / "report.json")
        save_html(report, self.venue, self.out / "report.html")
        return report

    def _plan(self) -> LoadPlan:
        scenario, venue = self.scenario, self.venue
        bays = tuple(unit.id for unit in venue.units if unit.category == "parking")
        parking = scenario.parking
        return LoadPlan(
            url=self.services.ws_url,
            tenant=self.tenant,
            venue=venue.id,
            document=venue.model_dump_json().encode(),
            demand=scenario.demand_in(venue),
            seed=scenario.seed,
            ticks=scenario.ticks,
            speed=scenario.speed,
            people=scenario.clients.people,
            processes=scenario.clients.processes if scenario.clients.people else 0,
            currency=scenario.wallets.currency,
            top_up_minor=scenario.wallets.top_up_minor,
            signing_seed=self.services.signing_seed,
            offers=tuple(offer.id for offer in self.offers),
            folder=str(self.out / "load"),
            parking=ParkingPlan(bays, parking.occupied, parking.changes_per_minute) if parking and bays else None,
            walkers=scenario.crowd == "walkers",
        )

    def _make_folders(self) -> None:
        if self.out.exists() and any(self.out.iterdir()):
            raise Conflict(f"{self.out}: is not empty; give each run a folder of its own")
        (self.out / "load").mkdir(parents=True, exist_ok=True)

    # --- while it runs ------------------------------------------------------------------------------------------------

    def _on_event(self, frame: dict[str, Any]) -> None:
        match frame["op"]:
            case "closed":
                self.closed, self.epoch = max(self.closed, frame["tick"]), max(self.epoch, frame["epoch"])
                self.closed_event.set()
            case "stats":
                self.tick_ms = float(frame["tick_ms"])

    async def _sample(self) -> None:
        """Shards and generator, once a second."""
        while len(self.samples) < MAX_SAMPLES:
            at_s = (time.monotonic_ns() - self.start_ns) / 1e9
            try:
                profile = await self.services.profile()
            except EsplanadeError:
                profile = []  # a shard is away: the gap shows in the plot
            shards = tuple(
                ShardSample(str(p["shard"]), _number(p.get("turns_per_s")), int(_number(p.get("mailbox"))), int(_number(p.get("gated"))))
                for p in profile
            )
            told = self.measured.values()
            lag, connected = max((m.lag_p99_ms for m in told), default=0.0), sum(m.connected for m in told)
            self.samples.append(Sample(round(at_s, 2), self.closed, connected, self.tick_ms, lag, shards))
            await asyncio.sleep(1.0)

    async def _fault(self, fault: Fault) -> None:
        """Break something at its minute, and time how long the venue's clock stood still."""
        assert self.services.kill_shard is not None
        tick = ticks(fault.minute * 60)
        while self.closed < tick:
            self.closed_event.clear()
            await self.closed_event.wait()
        closed, epoch, at = self.closed, self.epoch, time.monotonic()
        what = await self.services.kill_shard(Address("positions", self.tenant, self.venue.id))
        returned = True
        while not (self.epoch > epoch and self.closed > closed):
            self.closed_event.clear()
            try:
                await asyncio.wait_for(self.closed_event.wait(), 1.0)
            except TimeoutError:
                if self.finished.keys() == self.names:
                    returned = False
                    break
        self.faults.append(FaultResult(fault.minute, fault.kind, what, tick, round(time.monotonic() - at, 3), returned))

    def _tell(self, phase: Literal["prepare", "run", "drain", "judge"], doing: str, share: float) -> None:
        self.progress(Progress(phase=phase, doing=doing, share=share))

    def _tell_measured(self) -> None:
        told = self.measured.values()
        tick = max(m.tick for m in told)
        feed = self.measured.get(FEED)
        running = tick < self.scenario.ticks
        self.progress(
            Progress(
                phase="run" if running else "drain",
                doing="playing" if running else "waiting for the last answers",
                share=min(1.0, self.closed / self.scenario.ticks),
                tick=tick,
                people=(feed.people if feed else 0) + sum(m.people for m in told if m.process != FEED),
                connected=sum(m.connected for m in told),
                pushes=sum(m.pushes for m in told),
                payments=sum(m.payments for m in told),
                lag_p99_ms=max(m.lag_p99_ms for m in told),
            )
        )

    # --- afterwards ---------------------------------------------------------------------------------------------------

    async def _judge(self, manifest: Manifest, told: dict[str, Any], started_unix_ms: int, began: float) -> RunReport:
        scenario, finished = self.scenario, self.finished
        feed = finished[FEED]
        first, last = feed.first_tick, min(f.closed for f in finished.values())
        self._tell("judge", "reading the journal", 0.0)
        facts, fold = Facts(first, last), Fold()
        async for event in read_journal(self.services.journal, self.tenant):
            facts.add(event)
            fold.add(event)
        run_hash = await asyncio.to_thread(facts.digest)
        logs = [np.load(self.out / "load" / f"{name}.npz") for name in sorted(finished)]
        received, counts = self._received(logs)
        books = check_books(fold, told, acked_in(logs, settled=SETTLED))
        findings = await asyncio.to_thread(self._find, first, last)
        gone = {int(s): int(t) for log in logs for s, t in zip(log["gone_subject"], log["gone_tick"], strict=True)}
        to_all = frozenset(i for i, offer in enumerate(self.offers) if isinstance(offer.audience, Everyone))
        compared = compare(findings.pushes, received, disconnected=gone, to_all=to_all)
        metrics = self._metrics(findings, compared, received, counts, books, facts)
        void = self._void(manifest, last)
        thresholds = judge(scenario.thresholds, metrics, void=void)
        self._warn(manifest, run_hash, metrics, last)
        paid = np.concatenate([log["pay_tick"][log["pay_status"] == SETTLED] for log in logs])
        lag = self._merged("lag")
        return RunReport(
            scenario=scenario.name,
            title=scenario.title,
            tenant=self.tenant,
            venue=self.venue.id,
            venue_name=self.venue.name,
            seed=scenario.seed,
            speed=scenario.speed,
            ticks=scenario.ticks,
            people_over_sockets=feed.websocket_people,
            started_unix_ms=started_unix_ms,
            wall_s=round(time.monotonic() - began, 3),
            held=all(result.held for result in thresholds),
            facts=verdict(metrics, books, run_hash),
            warnings=tuple(self.warnings),
            metrics=metrics,
            thresholds=thresholds,
            levels=tuple(level.name for level in self.venue.levels),
            people=findings.seconds,
            first_tick=first,
            pushes_each_second=_each_second(received.tick, first, last),
            payments_each_second=_each_second(paid, first, last),
            samples=tuple(self.samples),
            offers=tuple(
                OfferCount(offer.id, offer.title, offer.flash, offer.starts_tick, int(np.count_nonzero(received.offer == i)))
                for i, offer in enumerate(self.offers)
            ),
            latency=Durations.of(self._merged("latency")),
            payment_latency=Durations.of(self._merged("payment_latency")),
            generator_lag=Durations.of(lag),
            generator_bottleneck=scenario.speed > 0 and lag.quantile_ms(0.99) > LAG_ALARM_MS,
            busiest_tick=findings.busiest.tick,
            busiest=density(findings.busiest, self.venue),
            oracle=self._oracle(findings, compared),
            books=books,
            currency=scenario.wallets.currency,
            hash=run_hash,
            recording=manifest,
            faults=tuple(sorted(self.faults, key=lambda fault: fault.tick)),
            processes=tuple(_process(finished[name]) for name in sorted(finished)),
            shards=self.shards,
            crowd=feed.crowd,
            versions=_versions() | self.services.versions,
        )

    def _find(self, first: int, last: int) -> Findings:
        def told(tick: int) -> None:
            if tick % 50 == 0:
                self._tell("judge", "working out every push by brute force", (tick - first) / max(last - first, 1))

        recording = Recording(self.out / "recording")
        return find(recording.ticks(), offers=self.offers, venue=self.venue, first_tick=first, last_tick=last, progress=told)

    def _received(self, logs: list[Any]) -> tuple[Pushes, int]:
        """Pushes received, by the offers' index in this run (an unknown offer: beyond them), and how many reached more than one client."""
        index = {offer.id: i for i, offer in enumerate(self.offers)}
        parts = []
        for name, log in zip(sorted(self.finished), logs, strict=True):
            table = np.array([index.setdefault(offer, len(index)) for offer in self.finished[name].offers], np.int64)
            parts.append(Pushes(table[log["push_offer"]], log["push_subject"], log["push_tick"]))
        every = Pushes(*(np.concatenate([getattr(part, column) for part in parts]) for column in ("offer", "subject", "tick")))
        _, unique = np.unique(every.key(), return_index=True)
        mask = np.zeros(len(every), bool)
        mask[unique] = True
        return every.take(mask), len(every) - len(unique)

    def _merged(self, name: Literal["latency", "payment_latency", "lag"]) -> DurationHistogram:
        whole = DurationHistogram()
        for finished in self.finished.values():
            whole.merge(DurationHistogram.from_state(getattr(finished, name)))
        return whole

    def _metrics(self, found: Findings, compared: Comparison, received: Pushes, twice: int, books: Books, facts: Facts) -> dict[str, float]:
        every = list(self.finished.values())
        feed = self.finished[FEED]
        latency, paying, lag = self._merged("latency"), self._merged("payment_latency"), self._merged("lag")
        real_s = (max(f.closed_ns for f in every) - self.start_ns) / 1e9
        venue_s = (min(f.closed for f in every) - feed.first_tick + 1) * TICK_S
        flash = [i for i, offer in enumerate(self.offers) if offer.flash]
        return {
            "people_inside_max": found.people_inside_max,
            "people_inside_end": found.people_inside_end,
            "people_seen": found.people_seen,
            "turned_away": feed.turned_away,
            "websocket_people": feed.websocket_people,
            "pushes": compared.received,
            "pushes_flash": int(np.isin(received.offer, flash).sum()),
            "pushes_expected": compared.expected,
            "pushes_missing": len(compared.missing),
            "pushes_unexpected": len(compared.unexpected),
            "pushes_duplicate": sum(f.pushes_duplicate for f in every),
            "pushes_duplicate_after_dedup": twice,
            "push_latency_p50_ms": latency.quantile_ms(0.5),
            "push_latency_p99_ms": latency.quantile_ms(0.99),
            "push_latency_max_ms": latency.max_us / 1000,
            "payments": sum(f.payments_settled for f in every),
            "payments_refused": sum(f.payments_refused for f in every),
            "payments_unanswered": sum(f.payments_unanswered for f in every),
            "payment_latency_p99_ms": paying.quantile_ms(0.99),
            "acked_payments_lost": books.acked_lost,
            "books_sum": books.largest_sum,
            "books_difference": books.difference,
            "late_rows": max(facts.late_rows, *(f.late_rows for f in every)),
            "late_ticks": facts.late_ticks,
            "real_time_factor": round(venue_s / real_s, 4) if real_s > 0 else 0.0,
            "generator_lag_p99_ms": lag.quantile_ms(0.99),
            "recording_rows_dropped": 0,
            "shard_away_max_s": max((fault.away_s for fault in self.faults), default=0.0),
            "connections_lost": sum(f.reconnects for f in every),
        }

    def _void(self, manifest: Manifest, last: int) -> dict[str, str]:
        """Metrics that prove nothing in this run, and why."""
        why = ""
        if not manifest.complete:
            why = f"the recording dropped {manifest.rows_dropped} rows"
        elif last < self.finished[FEED].last_tick:
            why = f"the venue's clock stopped at tick {last} of {self.finished['feed'].last_tick}"
        elif any(f.not_logged for f in self.finished.values()):
            why = "the load generator could not log every push"
        names = ("people_inside_max", "people_inside_end", "people_seen", "pushes_expected", "pushes_missing", "pushes_unexpected")
        return dict.fromkeys(names, why) if why else {}

    def _warn(self, manifest: Manifest, run_hash: RunHash, metrics: dict[str, float], last: int) -> None:
        metrics["recording_rows_dropped"] = manifest.rows_dropped
        warn = self.warnings.append
        if self.scenario.speed > 0 and metrics["generator_lag_p99_ms"] > LAG_ALARM_MS:
            warn(
                f"The load generator sent {metrics['generator_lag_p99_ms']:,.0f} ms late at the 99th percentile: it was the bottleneck, and latencies are not the service's."
            )
        if run_hash.void is not None:
            warn(f"The hash is void: {run_hash.void}.")
        if not manifest.complete:
            warn(
                f"The recording is incomplete ({manifest.rows_dropped} rows dropped{f', {manifest.error}' if manifest.error else ''}): the oracle's answer proves nothing."
            )
        if last < self.finished[FEED].last_tick:
            warn(f"The venue's clock stopped at tick {last}; the run sent up to {self.finished['feed'].last_tick}.")
        for finished in self.finished.values():
            if finished.given_up:
                warn(f"{finished.process} gave up {finished.given_up} ticks that could not be sent again.")
            for error in finished.errors:
                warn(f"{finished.process}: {error}")

    def _oracle(self, found: Findings, compared: Comparison) -> OracleResult:
        def line(kind: str, pushes: Pushes, i: int) -> str:
            offer = int(pushes.offer[i])
            return f"{kind} {self.offers[offer].id if offer < len(self.offers) else 'unknown'} {pushes.subject[i]} {pushes.tick[i]}"

        examples = [line("missing", compared.missing, i) for i in range(min(5, len(compared.missing)))]
        examples += [line("unexpected", compared.unexpected, i) for i in range(min(5, len(compared.unexpected)))]
        return OracleResult(
            compared.expected, compared.received, len(compared.missing), len(compared.unexpected), compared.excused, found.rows, tuple(examples)
        )


def _each_second(tick: np.ndarray[Any, Any], first: int, last: int) -> tuple[int, ...]:
    """Counts by venue second, from the first tick on."""
    seconds = (last - first) // 10 + 1
    within = (tick >= first) & (tick <= last)
    return tuple(np.bincount((tick[within] - first) // 10, minlength=seconds)[:seconds].tolist())


def _process(f: Finished) -> ProcessResult:
    return ProcessResult(
        process=f.process,
        people=f.people,
        pushes=f.pushes,
        duplicates=f.pushes_duplicate,
        payments=f.payments_settled,
        refused=f.payments_refused,
        unanswered=f.payments_unanswered,
        rewinds=f.rewinds,
        stalls=f.stalls,
        reconnects=f.reconnects,
        not_resumed=f.not_resumed,
        not_logged=f.not_logged,
        given_up=f.given_up,
        lag_p99_ms=DurationHistogram.from_state(f.lag).quantile_ms(0.99),
        errors=f.errors,
    )


def _plain(offer: Offer) -> dict[str, Any]:
    """An offer as the wire carries it."""
    built: dict[str, Any] = msgspec.to_builtins(offer)
    return built


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _versions() -> dict[str, str]:
    return {
        "esplanade": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": str(os.cpu_count()),
    }
