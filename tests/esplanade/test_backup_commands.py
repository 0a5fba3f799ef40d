"""`esplanade backup` and `restore` on data directories: with nothing running, and beside a service that runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from esplanade.cli.main import _cli
from esplanade.core.errors import Conflict, NotFound
from esplanade.database import opened_database
from esplanade.settings import Settings
from esplanade.storage.data_directory import DataDirectory
from esplanade.storage.embedded import start_postgres
from esplanade.storage.postgres_migrate import migrate
from tests.services_fixtures import open_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = open_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def esplanade(*arguments: str | Path) -> str:
    """What a command says; its errors are raised."""
    result = CliRunner().invoke(_cli, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


def add_tenant(url: str, tenant: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO esplanade.tenant (tenant, name, created_ms) VALUES (%s, %s, 1)", (tenant, tenant))


@pytest.mark.services
def test_a_directory_is_backed_up_beside_a_service_and_without_one_and_restored_into_a_new_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESPLANADE_POSTGRES_URL", raising=False)
    key = folder / "key"
    key.write_text("ab" * 32)
    with DataDirectory.open(folder / "data"):
        server = start_postgres(folder / "data")
        try:
            migrate(server.url)
            add_tenant(server.url, "one")
            assert "1 rows" in esplanade("backup", folder / "running", "--data-dir", folder / "data", "--encrypt", key)
            assert server.alive
            add_tenant(server.url, "two")
            with pytest.raises(Conflict, match="in use by process"):
                esplanade("restore", folder / "running", "--key", key, "--data-dir", folder / "data")
        finally:
            server.stop()
    assert "2 rows" in esplanade("backup", folder / "stopped", "--data-dir", folder / "data")
    assert "whole" in esplanade("backup", folder / "running", "--encrypt", key, "--verify")

    assert "1 rows" in esplanade("restore", folder / "running", "--key", key, "--data-dir", folder / "new")
    with opened_database(Settings(data_dir=folder / "new")) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT tenant FROM esplanade.tenant").fetchall() == [("one",)]
    with pytest.raises(Conflict, match="is in use: table"):
        esplanade("restore", folder / "stopped", "--data-dir", folder / "new")
    left = [path for path in folder.rglob("*") if path.is_socket() or path.suffix in (".lock", ".pid", ".partial")]
    assert left == [], "nothing runs on"


def test_a_directory_without_a_database_is_said_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESPLANADE_POSTGRES_URL", raising=False)
    with pytest.raises(NotFound, match="holds no database"):
        esplanade("backup", tmp_path / "b", "--data-dir", tmp_path / "none")
    with pytest.raises(NotFound, match="no such file"):
        esplanade("restore", tmp_path / "b", "--data-dir", tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
