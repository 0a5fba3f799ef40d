"""The Node client of tests/peers, written from docs/protocol.md alone, against the whole stack: the real command, shards as processes, PostgreSQL and Redis."""

from __future__ import annotations

import pytest

from gateway.client import Client
from tests.actors.parkside import keys, u4
from tests.peers.test_node_client import node, run_client
from tests.services.stack import ROOT, Esplanade
from spatial.venue_files import load_venue

pytestmark = pytest.mark.services

__all__ = ["node"]  # the fixture: skips where node or its packages are not to be had
