from tests.services_fixtures import postgres_server_url, redis_url

__all__ = ["postgres_server_url", "redis_url"]
