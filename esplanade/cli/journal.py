"""`esplanade journal`: whether it is whole, and its old segments into files."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from esplanade.cli.options import ArchiveKey, Config, DataDir, Encrypt, age_ms
from esplanade.core.errors import Fault, InvalidInput
from esplanade.settings import load_settings

app = typer.Typer(help="The journal.", no_args_is_help=True, add_completion=False)
_out = Console()


@app.command()
def verify(
    archive: Annotated[Path | None, typer.Option(help="Folder of archived files, to be read too.")] = None,
    archive_key: ArchiveKey = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Read every segment and snapshot (with --archive, every archived one): positions, versions, epochs, checksums, indexes. Changes nothing."""
    from esplanade.database import opened_database
    from esplanade.storage.backup import owner_connection
    from esplanade.storage.backup_file import read_key
    from esplanade.storage.journal_check import check_journal

    key = read_key(archive_key) if archive_key is not None else None
    with opened_database(load_settings(config=config, data_dir=data_dir)) as url, owner_connection(url) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        with _out.status("reading …"):
            found = check_journal(connection, archive, key)
    _out.print(
        f"whole: {found.logs} logs, {found.segments:,} segments and {found.archived:,} archived ones with {found.events:,} events, {found.snapshots} snapshots",
        highlight=False,
        soft_wrap=True,
    )
    if found.unread:
        _out.print(f"[yellow]note[/] {found.unread:,} archived segments were not read: name their folder with --archive", highlight=False)


@app.command("archive")
def archive_old(
    older_than: Annotated[str, typer.Option("--older-than", help="Age of a segment: 90d, 12h.")],
    to: Annotated[Path, typer.Option("--to", help="Folder for the files, made where it is missing.")],
    encrypt: Encrypt = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Move segments that are old and covered by a verified snapshot into files. A service may run meanwhile. Exit code 1 where a log's snapshot is not right."""
    from esplanade.database import opened_database
    from esplanade.storage.backup_file import read_key

    key = read_key(encrypt) if encrypt is not None else None
    age = age_ms(older_than)
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{to}: cannot be made ({error.strerror}); name a folder that you may write to") from error
    with opened_database(load_settings(config=config, data_dir=data_dir)) as url:
        failed = asyncio.run(_archive(url, to, age, key))
    if failed:
        raise typer.Exit(1)


async def _archive(url: str, folder: Path, older_than_ms: int, key: bytes | None) -> int:
    """Every log in turn; the number of those whose snapshot failed its check."""
    from actors.snapshot_check import covered_until
    from esplanade.core.ids import PARTITIONS
    from esplanade.storage.archive import archive_range, due_until, lock_archiving
    from esplanade.storage.backup import owner_connection
    from esplanade.storage.journal_check import last_versions
    from esplanade.storage.postgres import PostgresJournal
    from esplanade.storage.postgres_catalogue import PostgresCatalogue

    moved = kept = failed = 0
    journal, catalogue = await PostgresJournal.open(url, connections=1), await PostgresCatalogue.open(url, connections=1)
    try:
        with owner_connection(url) as connection:
            lock_archiving(connection)
            for partition in range(PARTITIONS):
                for tenant in await journal.heads(partition):
                    # First what may be due at all: replaying a log to check its snapshot is the expensive part.
                    snapshot = await journal.snapshot(tenant, partition)
                    held = snapshot.position if snapshot is not None else 0
                    first, last = due_until(connection, tenant, partition, covered=held, older_than_ms=older_than_ms)
                    if last < first:
                        kept += 1
                        continue

                    async def versions(position: int, log: tuple[str, int] = (tenant, partition)) -> dict[str, int]:
                        return last_versions(connection, *log, position)

                    try:
                        covered = await covered_until(journal, catalogue, tenant, partition, versions)
                    except Fault as error:
                        _out.print(f"[red]kept[/] {escape(error.message)}", highlight=False, soft_wrap=True)
                        failed += 1
                        continue
                    first, last = due_until(connection, tenant, partition, covered=covered, older_than_ms=older_than_ms)
                    part = await asyncio.to_thread(
                        archive_range, connection, folder, tenant, partition, first, last,
                        unix_ms=time.time_ns() // 1_000_000, key=key, salt=os.urandom(16),
                    )  # fmt: skip
                    moved += last - first + 1
                    _out.print(f"archived: {escape(str(folder / part.file))}: positions {first} to {last}", highlight=False, soft_wrap=True)
    finally:
        await journal.close()
        await catalogue.close()
    _out.print(f"{moved:,} segments archived; {kept} logs have none that is old enough and covered by a snapshot", highlight=False)
    return failed
