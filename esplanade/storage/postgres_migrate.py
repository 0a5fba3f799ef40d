"""Brings a database to the schema that this code needs: numbered files, each applied once, in one transaction with its record.

Never changes a database that newer code has written, or whose applied files differ from ours.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from typing import Final, NamedTuple

import psycopg

from esplanade.core.errors import Conflict, Fault, InvalidInput, Unavailable

_LOCK: Final = 0x45535041  # "ESPA": two starters take turns
_FILE: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


class Migration(NamedTuple):
    version: int
    name: str
    sql: bytes

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql).hexdigest()


def migrations() -> list[Migration]:
    """The files of this code, by version from 1 without gaps."""
    found = []
    for file in resources.files("esplanade.storage").joinpath("migrations").iterdir():
        match = _FILE.fullmatch(file.name)
        if match is not None:
            found.append(Migration(int(match[1]), file.name, file.read_bytes()))
    found.sort()
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise Fault(f"migrations {[migration.name for migration in found]}: versions must count from 1 without gaps")
    return found


def migrate(url: str, known: Sequence[Migration] | None = None) -> list[str]:
    """Apply what is missing and return the names of the files applied. Blocks; a second starter waits up to a minute and then finds nothing to do.

    Raises Conflict where the database is newer than the code or was made from other files, Unavailable where it cannot be reached,
    InvalidInput where the URL's user may not create what is needed.
    """
    known = migrations() if known is None else known
    try:
        with psycopg.connect(url, connect_timeout=10) as connection:
            connection.execute("SELECT set_config('lock_timeout', '60s', true), set_config('client_min_messages', 'warning', true)")
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            connection.execute("CREATE SCHEMA IF NOT EXISTS esplanade")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS esplanade.migration (version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, "
                "applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
            )
            connection.execute("SELECT set_config('search_path', 'esplanade, pg_temp', true)")
            rows = connection.execute("SELECT version, name, checksum FROM migration ORDER BY version").fetchall()
            check_applied([(int(version), str(name), str(checksum)) for version, name, checksum in rows], known)
            missing = known[len(rows) :]
            for migration in missing:
                _apply(connection, migration)
                connection.execute(
                    "INSERT INTO migration (version, name, checksum) VALUES (%s, %s, %s)", (migration.version, migration.name, migration.checksum)
                )
            return [migration.name for migration in missing]
    except psycopg.errors.InsufficientPrivilege as error:
        raise InvalidInput(f"migrations: {error}; the URL's user must own the database and be able to create roles") from error
    except psycopg.OperationalError as error:
        raise Unavailable(f"PostgreSQL cannot be reached: {' '.join(str(error).split())}; start it, or mend ESPLANADE_POSTGRES_URL") from error


def _apply(connection: psycopg.Connection, migration: Migration) -> None:
    try:
        connection.execute(migration.sql)
    except (psycopg.OperationalError, psycopg.errors.InsufficientPrivilege):
        raise
    except psycopg.Error as error:
        raise Fault(f"migration {migration.name} failed and nothing was changed: {error}") from error


def check_applied(applied: Sequence[tuple[int, str, str]], known: Sequence[Migration]) -> None:
    """Compare (version, name, checksum) of the database with the code's files. Raises Conflict."""
    if len(applied) > len(known):
        raise Conflict(
            f"the database is at schema version {applied[-1][0]} ({applied[-1][1]}), this Esplanade knows {len(known)}: it is newer than the code; "
            "upgrade Esplanade, or use another database"
        )
    for (version, name, checksum), migration in zip(applied, known, strict=False):
        if (version, checksum) != (migration.version, migration.checksum):
            raise Conflict(
                f"schema version {version} was made from {name} with another content than this Esplanade's {migration.name}; use another database"
            )
