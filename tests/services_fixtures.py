"""A real PostgreSQL and a real Redis for tests, started once a session and only when a test asks for one.

Import the fixtures in the `conftest.py` of a folder whose tests need them. The directory is open to other users, since PostgreSQL does not run as root.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from esplanade.storage.embedded import start_postgres, start_redis
from esplanade.storage.postgres import migrate

TABLES = (
    "person_heard", "webhook_source", "webhook_dead", "webhook_delivery", "webhook_cursor", "webhook",
    "signing_key", "account", "operator", "token_family", "one_time", "api_key", "revocation",
    "segment", "snapshot", "outbox", "outbox_topic", "idempotency", "partition_lease", "radio_map", "venue", "subject_sequence", "tenant", "secret", "audit", "subject_key", "archive",
)  # fmt: skip


def open_folder() -> Path:
    """A fresh folder that PostgreSQL's user may pass through; the caller removes it."""
    folder = Path(tempfile.mkdtemp(prefix="esplanade-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """An empty server; tests take databases of their own with `postgres_url`."""
    folder = open_folder()
    server = start_postgres(folder)
    try:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE shared")
        migrate(database_url(server.url, "shared"))
        yield server.url
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(postgres_server_url: str) -> str:
    """A migrated database without a row. Tests share it in turn: deleting a few rows is much quicker than making a database."""
    url = database_url(postgres_server_url, "shared")
    with psycopg.connect(url, options="-c search_path=esplanade") as connection:
        for table in TABLES:
            connection.execute(f"DELETE FROM {table}".encode())
    return url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """One server for all; tests use channels and keys of their own."""
    folder = open_folder()
    server = start_redis(folder)
    try:
        yield server.url
    finally:
        server.stop()
        shutil.rmtree(folder)


def database_url(server_url: str, name: str) -> str:
    """The URL of another database of the server."""
    return server_url.replace("@/postgres?", f"@/{name}?")
