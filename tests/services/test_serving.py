"""`esplanade serve` while it runs: what it answers, where it listens, and that it is the only one on its directory."""

from __future__ import annotations

import ipaddress
import json
import subprocess

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.services.stack import COMMAND, ROOT, Esplanade, environment

pytestmark = pytest.mark.services


def test_ready_means_that_everything_answers(service: Esplanade) -> None:
    status, body = service.get("readyz")
    checks = json.loads(body)
    assert (status, checks["ready"]) == (200, True)
    assert checks["checks"] == dict.fromkeys(("postgres", "redis", "shards", "gateways"), "ok")
    assert json.loads(service.get("healthz")[1]) == {"status": "ok"}


def test_metrics_parse_and_tell_of_every_process(service: Esplanade) -> None:
    families = {family.name: family for family in text_string_to_metric_families(service.get("metrics")[1].decode())}
    assert {sample.labels["shard"] for sample in families["esplanade_shard"].samples} == {"shard-0", "shard-1", "shard-2"}, "the spare too"
    assert {sample.labels["process"] for sample in families["esplanade_up"].samples} == {"gateway-0", "api"}


def test_the_venues_that_ship_are_open(service: Esplanade) -> None:
    venues = json.loads(service.get("v1/venues")[1])
    assert {(venue["tenant"], venue["id"], venue["kind"]) for venue in venues} == {("demo", "parkside", "mall"), ("demo", "meadow", "festival")}
    document = json.loads(service.get("v1/venues/demo/parkside")[1])
    assert len(document["levels"]) == 4


def test_the_front_page_is_the_console_or_says_that_it_is_missing(service: Esplanade) -> None:
    status, page = service.get("")
    assert status == 200
    if (ROOT / "console" / "dist" / "index.html").is_file():
        assert b"<script" in page
    else:
        assert b"its console is missing" in page


def test_every_listening_socket_is_on_loopback(service: Esplanade) -> None:
    family = service.family()
    names = {process.name() for process in family}
    assert {"raylet", "gcs_server", "postgres", "redis-server"} <= names
    listening = {
        connection.laddr.ip: process.name()
        for process in family
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN or (connection.type.name == "SOCK_DGRAM" and not connection.raddr)
    }
    assert listening
    outside = {ip: name for ip, name in listening.items() if not _loopback(ip)}
    assert not outside


def _loopback(ip: str) -> bool:
    address = ipaddress.ip_address(ip)
    return address.is_loopback or bool(address.version == 6 and address.ipv4_mapped and address.ipv4_mapped.is_loopback)


def test_servers_have_no_tcp_port(service: Esplanade) -> None:
    servers = [process for process in service.family() if process.name() in ("postgres", "redis-server")]
    assert not [connection for process in servers for connection in process.net_connections("inet")]


def test_a_second_start_on_the_directory_is_refused_at_once_and_disturbs_nobody(service: Esplanade) -> None:
    before = {process.pid for process in service.family() if process.name() != "postgres"}  # PostgreSQL has a process a connection
    second = subprocess.run(
        [*COMMAND, "serve", "--data-dir", str(service.data)], capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=60, check=False
    )
    assert second.returncode == 2
    said = (second.stdout + second.stderr).strip()
    assert said.splitlines() == [
        f"conflict: Esplanade in {service.data} is in use by process {service.pid}; stop that process, or name another data directory"
    ]
    assert {process.pid for process in service.family() if process.name() != "postgres"} == before
    assert service.get("readyz")[0] == 200
