"""Webhooks in the memory of one process, for tests of logic; the same contract suite as the real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from esplanade.core.errors import NotFound
from esplanade.storage.memory import MemoryStore
from esplanade.storage.webhooks import MAX_DEAD, MAX_LOG, MAX_WEBHOOKS, Attempt, Cursor, DeadLetter, Source, Webhook, no_source, no_webhook, too_many


class MemoryWebhooks:
    """`store`: where the outbox's topics are."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._webhooks: dict[tuple[str, str], Webhook] = {}
        self._cursors: dict[tuple[str, str, str], Cursor] = {}
        self._attempts: dict[tuple[str, str], list[Attempt]] = {}
        self._dead: dict[tuple[str, str], dict[str, DeadLetter]] = {}
        self._sources: dict[tuple[str, str], Source] = {}

    async def add(self, webhook: Webhook, places: Mapping[str, tuple[int, int]]) -> None:
        if len(await self.webhooks(webhook.tenant)) >= MAX_WEBHOOKS:
            raise too_many("webhooks", webhook.tenant)
        key = (webhook.tenant, webhook.id)
        self._webhooks[key], self._attempts[key], self._dead[key] = webhook, [], {}
        for topic, (epoch, offset) in places.items():
            self._cursors[(*key, topic)] = Cursor(tenant=webhook.tenant, webhook=webhook.id, topic=topic, epoch=epoch, offset=offset)

    async def change(self, webhook: Webhook) -> None:
        await self.webhook(webhook.tenant, webhook.id)
        self._webhooks[webhook.tenant, webhook.id] = webhook

    async def remove(self, tenant: str, webhook: str) -> None:
        await self.webhook(tenant, webhook)
        for held in (self._webhooks, self._attempts, self._dead):
            held.pop((tenant, webhook))
        for key in [key for key in self._cursors if key[:2] == (tenant, webhook)]:
            del self._cursors[key]

    async def webhook(self, tenant: str, webhook: str) -> Webhook:
        held = self._webhooks.get((tenant, webhook))
        if held is None:
            raise no_webhook(tenant, webhook)
        return held

    async def webhooks(self, tenant: str) -> list[Webhook]:
        return [self._webhooks[key] for key in sorted(self._webhooks) if key[0] == tenant]

    async def claim(self, *, now_unix_ms: int, hold_ms: int, limit: int) -> list[tuple[Webhook, Cursor]]:
        found: list[tuple[Webhook, Cursor]] = []
        for key, cursor in sorted(self._cursors.items(), key=lambda item: item[1].due_unix_ms):
            webhook, topic = self._webhooks[key[:2]], self._store.topics.get((cursor.tenant, cursor.topic))
            due = cursor.due_unix_ms <= now_unix_ms and cursor.held_until_unix_ms <= now_unix_ms
            if len(found) < limit and webhook.enabled and due and topic is not None and (topic.epoch, topic.last) > (cursor.epoch, cursor.offset):
                held = self._cursors[key] = msgspec.structs.replace(cursor, held_until_unix_ms=now_unix_ms + hold_ms)
                found.append((webhook, held))
        return found

    async def settle(self, held: Cursor, now: Cursor, attempts: Sequence[Attempt] = (), dead: DeadLetter | None = None) -> bool:
        key = (held.tenant, held.webhook, held.topic)
        cursor = self._cursors.get(key)
        if cursor is None or cursor.held_until_unix_ms != held.held_until_unix_ms:
            return False
        self._cursors[key] = now
        self._attempts[key[:2]] = (self._attempts[key[:2]] + list(attempts))[-MAX_LOG:]
        if dead is not None:
            letters = self._dead[key[:2]]
            letters.setdefault(dead.message, dead)
            while len(letters) > MAX_DEAD:
                del letters[min(letters, key=lambda one: (letters[one].at_unix_ms, one))]
        return True

    async def attempts(self, tenant: str, webhook: str, *, limit: int) -> list[Attempt]:
        return self._attempts.get((tenant, webhook), [])[::-1][:limit]

    async def dead(self, tenant: str, webhook: str, *, after: str = "", limit: int) -> list[DeadLetter]:
        return [letter for message, letter in sorted(self._dead.get((tenant, webhook), {}).items()) if message > after][:limit]

    async def dead_letter(self, tenant: str, webhook: str, message: str) -> DeadLetter:
        letter = self._dead.get((tenant, webhook), {}).get(message)
        if letter is None:
            raise NotFound(f"dead letter {message[:200]!r} of webhook {webhook}: there is none of this id; perhaps it was delivered since")
        return letter

    async def revive(self, tenant: str, webhook: str, attempt: Attempt, *, gone: bool) -> None:
        await self.webhook(tenant, webhook)
        if gone:
            self._dead[tenant, webhook].pop(attempt.message, None)
        self._attempts[tenant, webhook] = [*self._attempts[tenant, webhook], attempt][-MAX_LOG:]

    async def add_source(self, source: Source) -> None:
        if len(await self.sources(source.tenant)) >= MAX_WEBHOOKS:
            raise too_many("sources", source.tenant)
        self._sources[source.tenant, source.id] = source

    async def remove_source(self, tenant: str, source: str) -> None:
        if self._sources.pop((tenant, source), None) is None:
            raise no_source(tenant, source)

    async def source(self, tenant: str, source: str) -> Source:
        held = self._sources.get((tenant, source))
        if held is None:
            raise no_source(tenant, source)
        return held

    async def sources(self, tenant: str) -> list[Source]:
        return [self._sources[key] for key in sorted(self._sources) if key[0] == tenant]

    async def close(self) -> None:
        pass
