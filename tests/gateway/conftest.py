"""Real servers for the tests of this folder that ask for them."""

from tests.services_fixtures import postgres_server_url, postgres_url, redis_url

__all__ = ["postgres_server_url", "postgres_url", "redis_url"]
