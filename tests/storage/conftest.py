"""A real PostgreSQL for the tests that need one."""

from __future__ import annotations

from tests.services_fixtures import postgres_server_url, postgres_url

__all__ = ["postgres_server_url", "postgres_url"]
