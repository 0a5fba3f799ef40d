"""What a backup is: every table of the schema as it stood at one instant, out to a file and back into an empty database.

Owns which tables go along and what a restored database must not take over: publications (`outbox`; every topic begins a new epoch, so clients are told plainly to begin anew),
and leases. Epochs of the restored leases, for all partitions, lie above every epoch that an owner of the lost database can hold, so such an owner can append nothing.
A backup is taken from a running database without stopping anybody; a restore is one transaction. Both stream; neither holds a table in memory. Blocks.
"""

from __future__ import annotations

import graphlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
from psycopg import sql

from esplanade.core.errors import Conflict, Fault, InvalidInput, Unavailable
from esplanade.core.ids import PARTITIONS
from esplanade.storage.backup_file import CHUNK_BYTES, BackupWriter, read_backup
from esplanade.storage.journal_check import JournalCheck, check_journal
from esplanade.storage.postgres_migrate import Migration, migrate, migrations

LEFT_OUT: Final = frozenset({"migration", "outbox"})
"""Tables that a backup does not carry: the first is made by the migrations, the second is told anew."""

RESTORED_OWNER: Final = "restored"
"""Who holds the leases of a restored database, expired, until the first shard takes them."""

Say = Callable[[str], None]


class TableHeading(msgspec.Struct, frozen=True):
    table: str
    columns: tuple[str, ...]


class TableCopy(msgspec.Struct, frozen=True):
    """A table in the file: `bytes` and `sha256` (hex) of its stream in PostgreSQL's binary COPY format."""

    table: str
    columns: tuple[str, ...]
    rows: int
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds. `schema`: (version, name, checksum) of the migrations applied."""

    taken_unix_ms: int
    esplanade: str
    postgres: str
    schema: tuple[tuple[int, str, str], ...]
    tables: tuple[TableCopy, ...]

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)


class _Gathered:
    """What has passed of one table."""

    def __init__(self) -> None:
        self.bytes = 0
        self.digest = hashlib.sha256()

    def add(self, data: bytes | bytearray | memoryview) -> None:
        self.bytes += len(data)
        self.digest.update(data)


# --- out --------------------------------------------------------------------------------------------------------------


def write_backup(url: str, path: Path, *, key: bytes | None, salt: bytes, esplanade: str, say: Say = lambda _: None) -> Manifest:
    """Copy the database to `path`, consistent as of one instant, and return what it holds. `salt`: 16 random bytes.

    Raises Conflict where `path` exists, NotFound-like InvalidInput where the database is none of ours, Unavailable where it goes away (then there is no file).
    """
    with owner_connection(url) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute("SET LOCAL row_security = off")  # an error, rather than a backup of some rows, where a policy would bind this user
        schema = _schema(connection)
        if not schema:
            raise InvalidInput("the database has no Esplanade schema; name the database that `esplanade serve` uses")
        taken, server = _one(connection, "SELECT (extract(epoch FROM transaction_timestamp()) * 1000)::bigint, current_setting('server_version')")
        with BackupWriter(path, taken_unix_ms=taken, key=key, salt=salt) as writer:
            tables = []
            for table, columns in _tables(connection):
                say(table)
                tables.append(_copy_out(connection, writer, TableHeading(table, columns)))
            manifest = Manifest(taken, esplanade, server, tuple(schema), tuple(tables))
            writer.finish(msgspec.json.encode(manifest))
            return manifest


def _copy_out(connection: psycopg.Connection[Any], writer: BackupWriter, heading: TableHeading) -> TableCopy:
    writer.chunk(b"t", msgspec.json.encode(heading))
    passed, pending = _Gathered(), bytearray()
    statement = sql.SQL("COPY esplanade.{} ({}) TO STDOUT (FORMAT binary)").format(*_names(heading))
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for row in copy:
                passed.add(row)
                pending += row
                while len(pending) >= CHUNK_BYTES:
                    writer.chunk(b"d", bytes(pending[:CHUNK_BYTES]))
                    del pending[:CHUNK_BYTES]
        rows = cursor.rowcount
    if pending:
        writer.chunk(b"d", bytes(pending))
    return TableCopy(heading.table, heading.columns, rows, passed.bytes, passed.digest.hexdigest())


def _names(heading: TableHeading) -> tuple[sql.Identifier, sql.Composed]:
    return sql.Identifier(heading.table), sql.SQL(", ").join(map(sql.Identifier, heading.columns))


# --- reading a file ---------------------------------------------------------------------------------------------------


def check_backup(path: Path, *, key: bytes | None) -> Manifest:
    """Read the whole file and compare it with its checksums and its manifest. Raises NotFound, InvalidInput."""
    manifest: Manifest | None = None
    passed: dict[str, _Gathered] = {}
    headings: list[TableHeading] = []
    for kind, payload in read_backup(path, key):
        match kind:
            case b"t":
                headings.append(_decoded(path, payload, TableHeading))
                passed[headings[-1].table] = _Gathered()
            case b"d":
                if not headings:
                    raise _unlike(path)
                passed[headings[-1].table].add(payload)
            case b"m":
                manifest = _decoded(path, payload, Manifest)
    if manifest is None or [TableHeading(table.table, table.columns) for table in manifest.tables] != headings:
        raise _unlike(path)
    for table in manifest.tables:
        if (passed[table.table].bytes, passed[table.table].digest.hexdigest()) != (table.bytes, table.sha256):
            raise _unlike(path)
    return manifest


def _decoded(path: Path, payload: bytes, kind: type[msgspec.Struct]) -> Any:
    try:
        return msgspec.json.decode(payload, type=kind)
    except msgspec.DecodeError as error:
        raise _unlike(path) from error


def _unlike(path: Path) -> InvalidInput:
    return InvalidInput(f"{path}: what it holds is not what its manifest says; use another copy")


# --- in ---------------------------------------------------------------------------------------------------------------


class Restored(msgspec.Struct, frozen=True):
    manifest: Manifest
    checked: JournalCheck
    epoch: int
    """Of every partition's lease now."""


def restore_backup(url: str, path: Path, *, key: bytes | None, say: Say = lambda _: None) -> Restored:
    """Fill an empty database from a backup: all of it, checked, or nothing. Then the schema is brought to this code's.

    The file is read twice: it is found whole before anything is written. In the same transaction as the rows, every segment and snapshot is read back and checked.
    Raises NotFound or InvalidInput for the file, Conflict where the database is not empty or the backup is newer than this code, Fault where what was backed up is itself
    damaged, Unavailable.
    """
    say("reading the file")
    manifest = check_backup(path, key=key)
    known = migrations()
    _check_schema(path, manifest.schema, known)
    with owner_connection(url) as connection:
        there = _schema(connection)
    if there and there != list(manifest.schema):
        raise Conflict(f"the database is at schema version {len(there)}, the backup at {len(manifest.schema)}; restore into a new, empty database")
    migrate(url, known[: len(manifest.schema)])
    with owner_connection(url) as connection, connection.transaction():
        connection.execute("SET LOCAL row_security = off")
        _check_empty(connection)
        _load(connection, path, key, manifest, say)
        epoch = _begin_anew(connection)
        say("checking the journal")
        checked = check_journal(connection)
    migrate(url)
    return Restored(manifest, checked, epoch)


def _check_schema(path: Path, schema: Sequence[tuple[int, str, str]], known: Sequence[Migration]) -> None:
    if len(schema) > len(known):
        raise Conflict(f"{path}: has schema version {len(schema)}, this Esplanade knows {len(known)}; upgrade Esplanade, then restore")
    for (version, name, checksum), migration in zip(schema, known, strict=False):
        if (version, checksum) != (migration.version, migration.checksum):
            raise Conflict(f"{path}: its schema version {version} was made from {name} with another content than this Esplanade's {migration.name}")


def _check_empty(connection: psycopg.Connection[Any]) -> None:
    """Locks every table until the transaction ends: nobody fills it meanwhile. Raises Conflict."""
    for table, _ in _tables(connection, LEFT_OUT - {"outbox"}):
        connection.execute(sql.SQL("LOCK TABLE esplanade.{} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table)))
        if connection.execute(sql.SQL("SELECT 1 FROM esplanade.{} LIMIT 1").format(sql.Identifier(table))).fetchone() is not None:
            raise Conflict(f"the database is in use: table {table} has rows; restore into an empty database or data directory")


def _load(connection: psycopg.Connection[Any], path: Path, key: bytes | None, manifest: Manifest, say: Say) -> None:
    copies = {table.table: table for table in manifest.tables}
    chunks = read_backup(path, key)
    kind, payload = next(chunks)
    while kind == b"t":
        heading: TableHeading = _decoded(path, payload, TableHeading)
        say(heading.table)
        passed = _Gathered()
        with connection.cursor() as cursor:
            with cursor.copy(sql.SQL("COPY esplanade.{} ({}) FROM STDIN (FORMAT binary)").format(*_names(heading))) as copy:
                for kind, payload in chunks:
                    if kind != b"d":
                        break
                    passed.add(payload)
                    copy.write(payload)
            rows = cursor.rowcount
        copied = copies[heading.table]
        if (rows, passed.bytes, passed.digest.hexdigest()) != (copied.rows, copied.bytes, copied.sha256):
            raise _unlike(path)
    for _ in chunks:  # the file's own checksum comes after the manifest
        raise _unlike(path)


def _begin_anew(connection: psycopg.Connection[Any]) -> int:
    """New epochs of leases and topics: above all former ones, and (being the time in seconds) above those of another restore of the same backup."""
    (epoch,) = _one(
        connection,
        "SELECT greatest((SELECT coalesce(max(epoch), 0) + 1 FROM esplanade.partition_lease), (SELECT coalesce(max(epoch), 0) + 1 FROM esplanade.segment), "
        "(SELECT coalesce(max(epoch), 0) + 1 FROM esplanade.outbox_topic), extract(epoch FROM clock_timestamp())::bigint)",
    )
    connection.execute(
        "INSERT INTO esplanade.partition_lease (partition, owner, epoch, expires_ms) SELECT partition, %s, %s, 0 FROM generate_series(0, %s) AS partition "
        "ON CONFLICT (partition) DO UPDATE SET owner = excluded.owner, epoch = excluded.epoch, expires_ms = 0",
        (RESTORED_OWNER, epoch, PARTITIONS - 1),
    )
    connection.execute("UPDATE esplanade.outbox_topic SET epoch = %s, trimmed = 0, last_offset = 0", (epoch,))
    return int(epoch)


# --- the database -----------------------------------------------------------------------------------------------------


class owner_connection:
    """A connection with the owner's rights, no time limit on a statement, and errors turned into ours."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> psycopg.Connection[Any]:
        try:
            self._connection = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=10,
                keepalives_idle=5,
                application_name="esplanade backup",
                options="-c statement_timeout=0",
            )
        except psycopg.OperationalError as error:
            raise Unavailable(f"PostgreSQL cannot be reached: {' '.join(str(error).split())}; start it, or mend ESPLANADE_POSTGRES_URL") from error
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._connection.close()
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            raise InvalidInput(f"PostgreSQL: {error}; use the URL of the user who owns the database") from error
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            raise Unavailable(f"PostgreSQL went away: {' '.join(str(error).split())}; nothing was done, begin again") from error
        if isinstance(error, psycopg.Error):
            raise Fault(f"PostgreSQL ({error.sqlstate}): {error}; nothing was done") from error


def _one(connection: psycopg.Connection[Any], query: str) -> tuple[Any, ...]:
    row = connection.execute(query.encode()).fetchone()
    if row is None:
        raise Fault("PostgreSQL answered no row where there is always one")
    return tuple(row)


def _schema(connection: psycopg.Connection[Any]) -> list[tuple[int, str, str]]:
    """What is applied; nothing where the database is not ours yet."""
    if _one(connection, "SELECT to_regclass('esplanade.migration') IS NULL") == (True,):
        return []
    rows = connection.execute("SELECT version, name, checksum FROM esplanade.migration ORDER BY version").fetchall()
    return [(int(version), str(name), str(checksum)) for version, name, checksum in rows]


def _tables(connection: psycopg.Connection[Any], left_out: frozenset[str] = LEFT_OUT) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every table of the schema with its columns, those that others refer to first. Whatever a migration adds goes along by itself."""
    columns = {
        str(table): tuple(str(name) for name in names)
        for table, names in connection.execute(
            "SELECT c.relname, array_agg(a.attname ORDER BY a.attnum) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
            "WHERE c.relnamespace = 'esplanade'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' "
            "GROUP BY c.relname"
        ).fetchall()
    }
    order: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter({table: set() for table in sorted(columns)})
    for table, needed in connection.execute(
        "SELECT c.relname, f.relname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class f ON f.oid = k.confrelid "
        "WHERE k.contype = 'f' AND c.relnamespace = 'esplanade'::regnamespace AND k.conrelid <> k.confrelid"
    ).fetchall():
        order.add(str(table), str(needed))
    for table in order.static_order():
        if table not in left_out:
            yield table, columns[table]
