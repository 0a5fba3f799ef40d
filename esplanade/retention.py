"""Retention: people of whom nothing was heard for as long as their tenant said are erased, and recordings that old are deleted. Books, totals and the journal stay (docs/decisions/0004).

Owns who is due and the passes. Runs in the API process, of which a service has one, within its housekeeping: one pass at a time, each MAX_A_PASS people at most. A pass that is broken off, or
made by two services at once, does nothing wrong: a person leaves the table of those heard of last of all, and the line in the audit trail has an id made of whom it is about.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from esplanade.core.clock import SystemClock
from esplanade.core.ids import check_name
from esplanade.storage.audit import AuditLine, AuditLog, Detail
from esplanade.storage.catalogue import Catalogue
from esplanade.storage.people import People, Person
from gateway.answers import DAY_MS, Answers

MAX_A_PASS: Final = 200
"""People erased in one pass, over all tenants; the others wait for the next."""
MAX_RECORDINGS: Final = 1_000
"""Recordings looked at in one pass."""
RECORDING: Final = "recording"
"""Folder of a run in which its recording lies."""

_log = logging.getLogger("esplanade.retention")


class Recording(msgspec.Struct, frozen=True):
    """`written_ms`: when it was last written to."""

    tenant: str
    run: str
    folder: Path
    written_ms: int


class Retention:
    """`erase(tenant, subject)` erases somebody; `forget_keys` has the database remove what is left of destroyed keys. `runs`: the folder of the service's runs."""

    def __init__(
        self,
        *,
        answers: Answers,
        catalogue: Catalogue,
        people: People,
        audit: AuditLog,
        clock: SystemClock,
        erase: Callable[[str, int], Awaitable[bool]],
        forget_keys: Callable[[], Awaitable[None]],
        runs: Path | None,
    ) -> None:
        self._answers = answers
        self._catalogue = catalogue
        self._people = people
        self._audit = audit
        self._clock = clock
        self._erase = erase
        self._forget_keys = forget_keys
        self._runs = runs
        self.erased = 0
        self.deleted = 0

    async def one_pass(self) -> None:
        """Raises what the stores raise."""
        now_ms, left = self._clock.unix_ms(), MAX_A_PASS
        for tenant in await self._catalogue.tenants():
            due = await due_people(self._people, self._answers, tenant, now_ms, limit=left) if left else []
            for person in due:
                await self._erase(tenant, person.subject)
                silent_days = (now_ms - person.heard_ms) // DAY_MS
                await self._note(
                    f"{tenant}/{person.subject}/{person.heard_ms}", tenant, "subject.erase", str(person.subject), {"silent_days": silent_days}
                )
                await self._people.forget(person)
                self.erased += 1
                left -= 1
        if left < MAX_A_PASS:
            await self._forget_keys()
            _log.info("people_erased", extra={"people": MAX_A_PASS - left})
        for recording in await asyncio.to_thread(due_recordings, self._runs, self._answers, now_ms):
            await asyncio.to_thread(shutil.rmtree, recording.folder, ignore_errors=True)
            await self._note(f"{recording.run}/{recording.written_ms}", recording.tenant, "recording.delete", recording.run, {})
            self.deleted += 1

    async def _note(self, about: str, tenant: str, what: str, target: str, detail: Detail) -> None:
        line_id = hashlib.blake2b(f"{what} {about}".encode(), digest_size=16).digest()
        await self._audit.append([AuditLine(line_id, tenant, self._clock.unix_ms(), "esplanade", what, target, "retention", "done", detail)])


async def due_people(people: People, answers: Answers, tenant: str, now_ms: int, *, limit: int) -> list[Person]:
    """Who goes, silent longest first: last heard of more days ago than the tenant keeps people."""
    days = answers.retention_days(tenant)
    return [] if days is None else await people.silent(tenant, before_ms=now_ms - days * DAY_MS, limit=limit)


def due_recordings(runs: Path | None, answers: Answers, now_ms: int) -> list[Recording]:
    """Recordings in the folder of runs that their tenant keeps no longer, oldest first. Blocks."""
    found: list[Recording] = []
    folders = sorted(runs.glob(f"*/{RECORDING}"))[:MAX_RECORDINGS] if runs is not None and runs.is_dir() else []
    for folder in folders:
        tenant = _tenant_of(folder.parent)
        days = None if tenant is None else answers.retention_days(tenant)
        written_ms = max((round(path.stat().st_mtime * 1000) for path in (folder, *folder.iterdir())), default=0)
        if tenant is not None and days is not None and written_ms < now_ms - days * DAY_MS:
            found.append(Recording(tenant, folder.parent.name, folder, written_ms))
    return sorted(found, key=lambda one: one.written_ms)


class _Run(msgspec.Struct):
    """What is read of a run's `run.json`, or of its recording's own manifest."""

    tenant: str


def _tenant_of(run: Path) -> str | None:
    """Who asked for the run; None where nothing in it says so."""
    for file in (run / "run.json", run / RECORDING / "recording.json"):
        try:
            return check_name(msgspec.json.decode(file.read_bytes(), type=_Run).tenant, "tenant")
        except FileNotFoundError:
            continue
        except msgspec.MsgspecError:
            _log.warning("run_unreadable", extra={"file": str(file)})
    return None
