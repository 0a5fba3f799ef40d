"""What tenants have answered about their people: whether they are asked before it is known where they are, and for how long they are kept. docs/security.md says it for who runs a house.

Owns what is in force where a tenant has not answered: at home (all embedded, on loopback) nobody is asked and nobody goes, since nobody but who sits there can come; everywhere else the
strict answers. Who has not answered is told of at every start (`lacking`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

STRICT_RETENTION_DAYS: Final = 30
"""For how long people are kept whose tenant has not said."""
DAY_MS: Final = 86_400_000


class Answer(msgspec.Struct, frozen=True):
    """One tenant's. None: not answered."""

    consent: Literal["asked", "assumed"] | None = None
    retention_days: int | None = None


class Answers:
    """`given`: tenant by tenant, as the settings have it. `at_home`: whether all is embedded and on loopback."""

    def __init__(self, given: Mapping[str, Answer] | None = None, *, at_home: bool = True) -> None:
        self._given = dict(given or {})
        self._at_home = at_home

    def asks(self, tenant: str) -> bool:
        """Whether people of the tenant are asked for consent."""
        answer = self._of(tenant).consent
        return not self._at_home if answer is None else answer == "asked"

    def retention_days(self, tenant: str) -> int | None:
        """After how many days of silence a person is erased and a recording deleted; None: never."""
        days = self._of(tenant).retention_days
        return days if days is not None or self._at_home else STRICT_RETENTION_DAYS

    def lacking(self, tenants: Iterable[str]) -> list[str]:
        """A sentence for each tenant that has not answered: what is in force until it does, and how to."""
        told: list[str] = []
        for tenant in sorted({*tenants, *self._given}):
            answer = self._of(tenant)
            missing = [name for name, held in (("consent", answer.consent), ("retention_days", answer.retention_days)) if held is None]
            if missing:
                told.append(f"tenant {tenant} has not answered {' and '.join(missing)}: {self._meanwhile(missing)}; answer in [tenants.{tenant}]")
        return told

    def _of(self, tenant: str) -> Answer:
        return self._given.get(tenant, _NO_ANSWER)

    def _meanwhile(self, missing: list[str]) -> str:
        says = {
            "consent": ("its people are not asked", "its people are asked before it is known where they are"),
            "retention_days": ("nobody is ever erased", f"who was silent for {STRICT_RETENTION_DAYS} days is erased"),
        }
        return " and ".join(says[name][0 if self._at_home else 1] for name in missing)


_NO_ANSWER: Final = Answer()
