"""Beside a service that runs: a backup, the audit trail, what is held about a person, and whether the journal is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.client import Client
from tests.services.stack import Esplanade

pytestmark = pytest.mark.services

OFFER = {"id": "kept", "unit_id": "u", "title": "Ten off", "audience": {"type": "everyone"}}


def says(data: Path, *arguments: str) -> str:
    with Esplanade(data, *arguments) as command:
        assert command.wait() == 0, command.text
        return command.text


async def test_commands_beside_a_running_service(service: Esplanade, tmp_path: Path) -> None:
    venue = json.loads(service.get("v1/console")[1])["venues"][0]["id"]
    document = json.loads(service.get(f"v1/venues/demo/{venue}")[1])
    code, unit = document["entrances"][0]["code"], document["units"][0]["id"]
    guest = await Client.connect(service.ws, guest_of="demo", client="phone")
    subject = str(guest.welcome["subject"])
    await guest.walk_in(venue, code)
    await guest.close()
    operator = await Client.connect(service.ws, client="desk", token=service.token("operator"))
    await operator.request("create_offer", venue=venue, offer={**OFFER, "unit_id": unit})
    await operator.close()

    assert "written" in says(service.data, "backup", str(tmp_path / "b"))
    assert "whole" in says(service.data, "journal", "verify")
    where = ("--tenant", "demo")
    told = says(service.data, "subject", "export", subject, *where)
    assert code in told, "sealed by the shard, opened by the command"
    says(service.data, "subject", "erase", subject, "--yes", *where)
    after = says(service.data, "subject", "export", subject, *where)
    assert code not in after
    assert json.loads(after)["erased"]
    acts = [json.loads(line)["what"] for line in says(service.data, "audit", "--json", *where).splitlines() if line]
    assert set(acts) >= {"token.issue", "offer.create", "subject.export", "subject.erase"}
