"""`esplanade backup` and `esplanade restore`: a deployment's whole database to one file, and back into an empty one."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from esplanade import __version__
from esplanade.cli.options import Config, DataDir, Encrypt
from esplanade.settings import load_settings

_out = Console()


def backup(
    file: Annotated[Path, typer.Argument(help="File to write; never replaced. With --verify, file to read.")],
    encrypt: Encrypt = None,
    verify: Annotated[bool, typer.Option("--verify", help="Write nothing: read FILE and compare it with its checksums.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Copy the whole database to one file, as of one instant, while the service runs or not."""
    from esplanade.database import opened_database
    from esplanade.storage.backup import check_backup, write_backup
    from esplanade.storage.backup_file import read_key

    key = read_key(encrypt) if encrypt is not None else None
    if verify:
        manifest = check_backup(file, key=key)
    else:
        with opened_database(load_settings(config=config, data_dir=data_dir)) as url, _out.status("connecting") as status:
            manifest = write_backup(
                url, file, key=key, salt=os.urandom(16), esplanade=__version__, say=lambda table: status.update(f"copying {table} …")
            )
    taken = datetime.fromtimestamp(manifest.taken_unix_ms / 1000, UTC).isoformat(timespec="seconds")
    said = "whole" if verify else "written"
    _out.print(
        f"{said}: {escape(str(file))}: {file.stat().st_size:,} bytes{', encrypted' if key else ''}, {manifest.rows:,} rows of {len(manifest.tables)} tables "
        f"as of {taken}, schema version {len(manifest.schema)}",
        highlight=False,
        soft_wrap=True,
    )


def restore(
    file: Annotated[Path, typer.Argument(help="A file that `esplanade backup` wrote.")],
    key: Annotated[Path | None, typer.Option("--key", help="Key file that it was encrypted with.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Fill an empty data directory (or the empty database of ESPLANADE_POSTGRES_URL) from a backup: all of it, checked, or nothing."""
    from esplanade.database import new_database
    from esplanade.storage.backup import check_backup, restore_backup
    from esplanade.storage.backup_file import read_key

    secret = read_key(key) if key is not None else None
    with _out.status("reading the file …") as status:
        check_backup(file, key=secret)  # before a directory is made for it
        with new_database(load_settings(config=config, data_dir=data_dir)) as url:
            done = restore_backup(url, file, key=secret, say=lambda step: status.update(f"{step} …"))
    _out.print(
        f"restored: {done.manifest.rows:,} rows; checked: {done.checked.segments:,} segments with {done.checked.events:,} events in {done.checked.logs} logs, "
        f"{done.checked.snapshots} snapshots; leases and topics begin at epoch {done.epoch}",
        highlight=False,
        soft_wrap=True,
    )
