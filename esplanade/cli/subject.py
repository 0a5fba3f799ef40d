"""`esplanade subject`: everything that is held about a person, its erasure, and who is due for it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from esplanade.cli.options import ArchiveKey, Config, DataDir
from esplanade.core.errors import InvalidInput
from esplanade.settings import Settings, load_settings

app = typer.Typer(help="What is held about a person.", no_args_is_help=True, add_completion=False)
_err = Console(stderr=True)

Subject = Annotated[str, typer.Argument(help="The subject's number, as its token names it.")]
Tenant = Annotated[str, typer.Option(help="Tenant that the subject belongs to.")]


@app.command()
def export(
    subject: Subject,
    tenant: Tenant,
    out: Annotated[Path | None, typer.Option(help="File to write instead of the standard output.")] = None,
    archive: Annotated[Path | None, typer.Option(help="Folder of archived segments (`esplanade journal archive`), where there are any.")] = None,
    archive_key: ArchiveKey = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Everything held about a subject, as JSON: sessions, wallet and statement, membership. Noted in the audit trail."""
    from spatial.venue_files import write_whole

    held = asyncio.run(_export(load_settings(config=config, data_dir=data_dir), tenant, subject, archive, archive_key))
    text = json.dumps(held, indent=1, ensure_ascii=False) + "\n"
    if out is None:
        print(text, end="")
    else:
        write_whole(out, text.encode())
        _err.print(f"written: {escape(str(out))}", soft_wrap=True)


@app.command()
def erase(
    subject: Subject,
    tenant: Tenant,
    yes: Annotated[bool, typer.Option("--yes", help="Do it: this cannot be undone.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Destroy the subject's key: what was sealed with it reads as erased from then on, and nothing personal is kept about this number again."""
    if not yes:
        raise InvalidInput(f"subject {subject} of {tenant}: erasing cannot be undone; export first if need be, then say --yes")
    held = asyncio.run(_erase(load_settings(config=config, data_dir=data_dir), tenant, subject))
    _err.print(f"erased: subject {subject} of {escape(tenant)}{'' if held else ' (there was no key: nothing sealed was held)'}", highlight=False)


@app.command()
def due(
    tenant: Tenant,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="People at most, silent longest first.")] = 1_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Who a running service would erase now, and which recordings it would delete, by the tenant's retention_days. Changes nothing."""
    found = asyncio.run(_due(load_settings(config=config, data_dir=data_dir), tenant, limit))
    if as_json:
        print(json.dumps(found, indent=1))
        return
    days = found["retention_days"]
    if days is None:
        print(f"tenant {tenant} has not answered retention_days, and all is embedded and on loopback: nobody is erased")
        return
    for one in found["people"]:
        print(f"subject {one['subject']}, last heard of {one['heard']}")
    for one in found["recordings"]:
        print(f"recording of {one['run']}, last written {one['written']}")
    more = " (there may be more: --limit)" if len(found["people"]) == limit else ""
    print(f"{len(found['people'])} people{more} and {len(found['recordings'])} recordings are older than {days} days")


async def _export(settings: Settings, tenant: str, subject: str, archive: Path | None, archive_key: Path | None) -> dict[str, Any]:
    from actors.subject_export import check_subject, held_about
    from esplanade.database import opened_database
    from esplanade.identities import open_keyring
    from esplanade.storage.archive import WithArchive, archived_ranges
    from esplanade.storage.backup import owner_connection
    from esplanade.storage.backup_file import read_key
    from esplanade.storage.journal import SegmentReader
    from esplanade.storage.postgres import PostgresJournal
    from esplanade.storage.postgres_catalogue import PostgresCatalogue
    from esplanade.storage.postgres_keys import PostgresSubjectKeys

    number = check_subject(subject)
    key = read_key(archive_key) if archive_key is not None else None
    with opened_database(settings) as url:
        journal, catalogue = await PostgresJournal.open(url, connections=1), await PostgresCatalogue.open(url, connections=1)
        keys = await PostgresSubjectKeys.open(url, connections=1)
        try:
            keyring = await open_keyring(keys, catalogue, settings.master_key_bytes)
            reader: SegmentReader = journal
            if archive is not None:
                with owner_connection(url) as connection:
                    reader = WithArchive(journal, archive, archived_ranges(connection), key)
            held = await held_about(reader, catalogue, keyring, tenant, number)
            await _note(url, tenant, "subject.export", subject)
            return held | {"erased": await keys.erased(tenant, subject)}
        finally:
            for store in (keys, catalogue, journal):
                await store.close()


async def _erase(settings: Settings, tenant: str, subject: str) -> bool:
    from actors.subject_export import check_subject
    from esplanade.core.clock import RealClock
    from esplanade.core.ids import check_name
    from esplanade.database import opened_database
    from esplanade.erasure import Eraser
    from esplanade.storage.postgres_identity import PostgresIdentity
    from esplanade.storage.postgres_keys import PostgresSubjectKeys, forget_destroyed_keys

    number = check_subject(subject)
    check_name(tenant, "tenant")
    with opened_database(settings) as url:
        keys, identities = await PostgresSubjectKeys.open(url, connections=1), await PostgresIdentity.open(url, connections=1)
        try:
            held = await Eraser(keys, identities, RealClock()).erase(tenant, number)
            await _note(url, tenant, "subject.erase", subject)
        finally:
            await identities.close()
            await keys.close()
        await asyncio.to_thread(forget_destroyed_keys, url)
        return held


async def _due(settings: Settings, tenant: str, limit: int) -> dict[str, Any]:
    from esplanade.core.clock import RealClock
    from esplanade.core.ids import check_name
    from esplanade.database import opened_database
    from esplanade.retention import due_people, due_recordings
    from esplanade.service_config import RUNS
    from esplanade.storage.postgres_people import PostgresPeople

    check_name(tenant, "tenant")
    answers, now_ms = settings.answers, RealClock().unix_ms()
    with opened_database(settings) as url:
        people = await PostgresPeople.open(url)
        try:
            silent = await due_people(people, answers, tenant, now_ms, limit=limit)
        finally:
            await people.close()
    recordings = await asyncio.to_thread(due_recordings, settings.data_dir.expanduser().resolve() / RUNS, answers, now_ms)
    return {
        "tenant": tenant,
        "retention_days": answers.retention_days(tenant),
        "people": [{"subject": one.subject, "heard": _time(one.heard_ms)} for one in silent],
        "recordings": [{"run": one.run, "written": _time(one.written_ms)} for one in recordings if one.tenant == tenant],
    }


def _time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


async def _note(url: str, tenant: str, what: str, subject: str) -> None:
    from esplanade.storage.audit import AuditLine
    from esplanade.storage.postgres_audit import PostgresAudit

    log = await PostgresAudit.open(url)
    try:
        await log.append([AuditLine(os.urandom(16), tenant, time.time_ns() // 1_000_000, "local", what, subject, "esplanade subject", "done", {})])
    finally:
        await log.close()
