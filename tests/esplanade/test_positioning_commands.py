"""`esplanade positioning publish` on a data directory: the map is checked against the venue's levels, kept by content, and noted."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from esplanade.core.errors import InvalidInput, NotFound
from esplanade.storage.embedded import start_postgres
from esplanade.storage.postgres import PostgresCatalogue, migrate
from simulation.phones import Air, AirSettings, survey
from spatial.positioning.model import save_model
from tests.actors.parkside import document, venue
from tests.esplanade.test_backup_commands import esplanade, folder

__all__ = ["folder"]


async def put_venue(url: str) -> None:
    catalogue = await PostgresCatalogue.open(url)
    await catalogue.add_tenant("demo", "Demo")
    await catalogue.put_venue("demo", document())
    await catalogue.close()


@pytest.mark.services
def test_a_model_is_published_once_by_its_content_and_one_of_another_venue_never(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ESPLANADE_POSTGRES_URL", raising=False)
    server = start_postgres(folder)
    try:
        migrate(server.url)
        asyncio.run(put_venue(server.url))
    finally:
        server.stop()
    here = venue()
    elsewhere = here.model_copy(update={"levels": tuple(level.model_copy(update={"short_name": f"U{level.short_name}"}) for level in here.levels)})
    for name, plan in (("here", here), ("elsewhere", elsewhere)):
        save_model(survey(Air(plan, seed=3, settings=AirSettings(wifi_m=12.0, ble_m=12.0)), seed=3), tmp_path / f"{name}.npz")
    where = ("--tenant", "demo", "--data-dir", folder)
    said = [esplanade("positioning", "publish", "parkside", tmp_path / "here.npz", *where) for _ in range(2)]
    assert "version 1" in said[0]
    assert said[0] == said[1], "the same file again changes nothing"
    with pytest.raises(InvalidInput, match="not levels of the venue"):
        esplanade("positioning", "publish", "parkside", tmp_path / "elsewhere.npz", *where)
    with pytest.raises(NotFound, match="import it first"):
        esplanade("positioning", "publish", "nowhere", tmp_path / "here.npz", *where)
    lines = [json.loads(line) for line in esplanade("audit", *where, "--json").splitlines()]
    assert "positioning.publish" in json.dumps(lines)
