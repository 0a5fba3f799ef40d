"""What every process of a service is told, and what they have in common. Imports little: each process loads only what it runs."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any, Final

import msgspec

from esplanade.core.logs import write_logs
from gateway.answers import Answer, Answers

GC_YOUNG: Final = 200_000
"""Container objects made before the collector of a shard looks at the young ones: its entities live long and hold no cycles."""
GC_YOUNG_DOOR: Final = 20_000
"""The same for the processes that hold connections, which do make cycles: a look takes a millisecond or two."""

RUNS: Final = "runs"
"""Folder of the service's runs in its data directory."""


class ServiceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What every process of a service is told; plain data, so that it crosses process borders."""

    postgres_url: str
    redis_url: str
    shards: int
    spares: int
    host: str
    gateway_port: int
    gateways: int = 1
    api_port: int
    local_sign_in: bool
    allowed_origins: tuple[str, ...]
    console: str | None
    max_connections: int
    lease_ttl_s: float
    tick_deadline_s: float
    max_speed_m_s: float = 0.0
    outbox_keep_s: float = 86_400.0
    master_key: bytes | None = None
    public_venues: bool = False
    shard_memory_mib: int = 0
    issuers: tuple[dict[str, Any], ...] = ()
    messages: str | None = None
    """File for sign-in codes over channels without a provider; None: they are off."""
    smtp: dict[str, Any] | None = None
    sms: dict[str, Any] | None = None
    guests: bool = True
    plans: dict[str, dict[str, Any]] = {}
    tenant_plans: dict[str, str] = {}
    default_plan: str | None = None
    tenants: dict[str, dict[str, Any]] = {}
    """What tenants have answered about their people."""
    at_home: bool = True
    """Whether all is embedded and on loopback, where tenants need not have answered."""
    per_address_min: int = 1_000
    tls: tuple[str, str] | None = None
    """Files of certificate chain and key."""
    webhooks_to_private_addresses: bool = False
    blobs: str = ""
    log_level: str = "info"
    logs: str = ""
    """Folder of log events; empty: to stderr, where processes may be on machines that have no such folder."""
    data_dir: str = ""
    """Of the service, for those of its processes that stand beside it; empty where rehearsals cannot be asked for."""

    @property
    def answers(self) -> Answers:
        return Answers({name: msgspec.convert(one, Answer) for name, one in self.tenants.items()}, at_home=self.at_home)

    @property
    def ws_url(self) -> str:
        return f"{'ws' if self.tls is None else 'wss'}://{_bracketed(self.host)}:{self.gateway_port}/"

    @property
    def api_url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://{_bracketed(self.host)}:{self.api_port}/"


def begin_logs(process: str, config: ServiceConfig) -> None:
    """What every process does first."""
    write_logs(process, config.log_level, Path(config.logs) if config.logs else None)


def settle_collector(young: int) -> None:
    """What was imported and started lives to the end: without this the collector walks through all of it now and then, 170 ms in which a gateway sends nothing
    (and, looking at every few hundred allocations, takes more than half of a shard's turn)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(young, 50, 50)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
