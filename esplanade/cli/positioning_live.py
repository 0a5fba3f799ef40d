"""`esplanade positioning publish | simulate | drill`: put a venue's radio map in force, and walk phones through a venue, in one process or against a running gateway, to see how well they are found. Publishing writes the catalogue alone."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from esplanade.cli.options import Config, DataDir
from esplanade.core.errors import InvalidInput, NotFound
from esplanade.settings import Settings, load_settings

if TYPE_CHECKING:
    from esplanade.storage.catalogue import RadioMapEntry

_err = Console(stderr=True)


def publish(
    venue: Annotated[str, typer.Argument(help="Id of a venue in the catalogue.")],
    model: Annotated[Path, typer.Argument(help="Model written by `fit` (or `simulate --out`).")],
    tenant: Annotated[str, typer.Option(help="Tenant that the venue belongs to.")] = "demo",
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Put a radio map in force for a venue; a running service goes by it within seconds. The floors of the model must be levels of the venue."""
    if not model.is_file():
        raise NotFound(f"{model}: no such file; make one with `esplanade positioning fit SITE_DIR --out MODEL`")
    entry = asyncio.run(_publish(load_settings(config=config, data_dir=data_dir), tenant, venue, model.read_bytes()))
    print(f"radio map of {venue}: version {entry.version}, {entry.digest[:12]}")


async def _publish(settings: Settings, tenant: str, venue: str, body: bytes) -> RadioMapEntry:
    from actors.positioning import open_filter
    from esplanade.database import opened_database
    from esplanade.storage.audit import AuditLine
    from esplanade.storage.postgres_audit import PostgresAudit
    from esplanade.storage.postgres_catalogue import PostgresCatalogue
    from spatial.venue import Venue

    with opened_database(settings) as url:
        catalogue = await PostgresCatalogue.open(url, connections=1)
        try:
            document = Venue.model_validate_json(await catalogue.venue(tenant, venue))
            await asyncio.to_thread(open_filter, body, document)  # what the service will do: it refuses here what it would refuse there
            entry = await catalogue.put_radio_map(tenant, venue, body)
        finally:
            await catalogue.close()
        audit = await PostgresAudit.open(url)
        try:
            detail: dict[str, str | int | float | bool | None] = {"version": entry.version, "digest": entry.digest}
            await audit.append(
                [
                    AuditLine(
                        os.urandom(16),
                        tenant,
                        time.time_ns() // 1_000_000,
                        "local",
                        "positioning.publish",
                        venue,
                        "esplanade positioning",
                        "done",
                        detail,
                    )
                ]
            )
        finally:
            await audit.close()
        return entry


def simulate(
    venue: Annotated[Path, typer.Argument(help="Venue document (JSON).")],
    phones: Annotated[int, typer.Option(min=1, max=20_000, help="People with a phone.")] = 300,
    seconds: Annotated[int, typer.Option(min=2, max=3_600, help="How long they walk.")] = 60,
    seed: Annotated[int, typer.Option(help="Of the air, the crowd and the phones.")] = 1,
    model: Annotated[Path | None, typer.Option(help="Model to locate with; left out: one surveyed in the same air.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the model that was surveyed.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Last line: the figures as JSON.")] = False,
) -> None:
    """Give the venue made transmitters, survey it, walk a crowd whose phones say only what they sense, and compare the dots with the truth."""
    import msgspec

    from simulation.phone_score import run_phones
    from simulation.phones import Air, survey
    from spatial.positioning.model import load_model, save_model
    from spatial.venue_files import load_venue

    if model is not None and out is not None:
        raise InvalidInput(f"--out {out} with --model {model}: nothing is surveyed then; leave one out")
    plan = load_venue(venue)
    if model is not None:
        used = load_model(model)
    else:
        used = survey(Air(plan, seed=seed), seed=seed)
        if out is not None:
            size = save_model(used, out)
            _err.print(f"written: {out}, {size / 1e6:.2f} MB, {len(used.radio.transmitters)} transmitters", soft_wrap=True, highlight=False)
    report = run_phones(plan, people=phones, seconds=seconds, seed=seed, cpu_s=time.thread_time, model=used)
    figures = msgspec.to_builtins(report)
    if as_json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:13} {value}")


def drill(
    venue: Annotated[Path, typer.Argument(help="Venue document (JSON), as it is in the catalogue.")],
    url: Annotated[str, typer.Option(help="The gateway's WebSocket, ws://HOST:PORT/v1/ws.")],
    tenant: Annotated[str, typer.Option(help="Tenant whose guests the phones are.")] = "demo",
    phones: Annotated[int, typer.Option(min=1, max=5_000, help="People with a phone; each is a connection.")] = 100,
    seconds: Annotated[int, typer.Option(min=2, max=3_600, help="How long they walk, in real time.")] = 60,
    seed: Annotated[int, typer.Option(help="Of the air, the crowd and the phones: the one with which the published map was made.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Last line: the figures as JSON.")] = False,
) -> None:
    """A crowd's phones as guests of a running gateway, a message a second each; what they are told is held against the truth, and how long it took."""
    import msgspec

    from simulation.phone_drill import drill as run_drill
    from simulation.phones import Air
    from spatial.venue_files import load_venue

    report = asyncio.run(run_drill(url, tenant, Air(load_venue(venue), seed=seed), people=phones, seconds=seconds, seed=seed))
    figures = msgspec.to_builtins(report)
    if as_json:
        print(json.dumps(figures))
    else:
        for name, value in (figures.pop("scored") | figures).items():
            print(f"{name:13} {value}")
