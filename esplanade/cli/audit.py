"""`esplanade audit`: who did what in a tenant."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from esplanade.cli.options import Config, DataDir, age_ms
from esplanade.core.errors import InvalidInput
from esplanade.settings import load_settings

_out = Console()


def audit(
    tenant: Annotated[str, typer.Option(help="Tenant; `-` for refusals of those who are not known to belong to one.")],
    since: Annotated[str, typer.Option(help="A time (2026-11-25T10:00, in UTC unless it says otherwise) or an age (90d, 12h, 30m).")] = "7d",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Lines at most, from the oldest.")] = 1_000,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Print the audit trail: who did what, to what, from where, and what came of it."""
    from esplanade.database import opened_database
    from esplanade.storage.audit import AuditLine
    from esplanade.storage.postgres_audit import PostgresAudit

    async def read(url: str) -> list[AuditLine]:
        log = await PostgresAudit.open(url)
        try:
            return await log.lines(tenant, since_unix_ms=_since_ms(since), limit=limit)
        finally:
            await log.close()

    with opened_database(load_settings(config=config, data_dir=data_dir)) as url:
        lines = asyncio.run(read(url))
    if as_json:
        for line in lines:
            said = {"at": _time(line.at_unix_ms), "tenant": line.tenant, "who": line.who, "what": line.what, "target": line.target}
            print(json.dumps(said | {"origin": line.origin, "outcome": line.outcome, "detail": dict(line.detail)}))
        return
    table = Table("at", "who", "what", "target", "origin", "outcome", "detail", box=None, pad_edge=False)
    for line in lines:
        detail = " ".join(f"{key}={value}" for key, value in line.detail.items())
        table.add_row(*(escape(cell) for cell in (_time(line.at_unix_ms), line.who, line.what, line.target, line.origin, line.outcome, detail)))
    _out.print(table)
    _out.print(f"{len(lines)} lines{' (there may be more: --limit)' if len(lines) == limit else ''}", highlight=False)


def _since_ms(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return time.time_ns() // 1_000_000 - age_ms(text)
    try:
        return round((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (OverflowError, ValueError) as error:
        raise InvalidInput(f"--since {text!r}: out of range; name a time such as 2026-11-25T10:00") from error


def _time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
