"""The database of a deployment, for commands that need it and no service: the given one, that of a running `esplanade serve`, or one started for as long as the command runs.

Owns which of the three it is. Starts nothing else and never joins a directory's servers to a service.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from esplanade.core.errors import Conflict, NotFound
from esplanade.settings import Settings
from esplanade.storage.data_directory import DataDirectory
from esplanade.storage.embedded import check_place, running_postgres_url, start_postgres


@contextlib.contextmanager
def opened_database(settings: Settings) -> Iterator[str]:
    """The URL of the deployment's database, running for the length of the context.

    Raises NotFound where the data directory holds none, Unavailable where it does not start or answer.
    """
    if settings.postgres_url is not None:
        yield settings.postgres_url
        return
    place = settings.data_dir.expanduser().resolve()
    if not holds_database(place):
        raise NotFound(f"{place}: holds no database; name the data directory of `esplanade serve` (--data-dir), or set ESPLANADE_POSTGRES_URL")
    try:
        directory = DataDirectory.open(place)
    except Conflict:
        yield running_postgres_url(place)
        return
    with directory, _started(place) as url:
        yield url


@contextlib.contextmanager
def new_database(settings: Settings) -> Iterator[str]:
    """The URL of a database to fill: the given one, or that of a data directory, which is made where it is missing. Nothing else runs there meanwhile.

    Raises Conflict where a service runs on the directory, Unavailable where the database does not start.
    """
    if settings.postgres_url is not None:
        yield settings.postgres_url
        return
    check_place(settings.data_dir)
    with DataDirectory.open(settings.data_dir) as directory, _started(directory.path) as url:
        yield url


def holds_database(data_dir: Path) -> bool:
    return (data_dir / "postgres" / "PG_VERSION").exists()


@contextlib.contextmanager
def _started(data_dir: Path) -> Iterator[str]:
    server = start_postgres(data_dir)
    try:
        yield server.url
    finally:
        server.stop()
