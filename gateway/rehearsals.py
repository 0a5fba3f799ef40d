"""HTTP for rehearsals: what a scenario is, begin one, follow it, stop it, and take away its report and recording.

Owns the paths, who may, and that a run is its tenant's alone. What plays is `scenarios.rehearsals`, in the service's own process; this one asks it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from esplanade.core.errors import NotFound
from gateway.acts import who_is
from gateway.audit_trail import AuditTrail
from gateway.openapi import body_of, says, wants
from gateway.rest import Caller, Desk, answer, tagged

REPORTS: Final = {"report.html": "text/html", "report.json": "application/json"}


class Rehearsing(Protocol):
    """Where rehearsals are played; each raises NotFound for what is not there or another tenant's."""

    async def start(self, tenant: str, scenario: str, *, venue: str | None, faults: bool) -> dict[str, Any]: ...

    async def stop(self, tenant: str, run: str) -> dict[str, Any]: ...

    async def run(self, tenant: str, run: str) -> dict[str, Any]: ...

    async def runs(self, tenant: str) -> list[dict[str, Any]]: ...

    def describe(self, scenario: str) -> object: ...

    def folder(self, run: str) -> Path: ...


class RehearsalWish(msgspec.Struct, forbid_unknown_fields=True):
    """`venue`: one of the tenant's own, in place of the scenario's; `faults`: break what the scenario says, shards of this service among it."""

    venue: str | None = None
    faults: bool = False


def rehearsal_routes(desk: Desk, rehearsing: Rehearsing, audit: AuditTrail | None) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["scenarios"])

    def may(request: Request) -> Caller:
        caller = desk.caller(request)
        desk.check(caller, "/v1/runs")
        return caller

    @router.get("/scenarios/{name}", responses=says(dict[str, Any], what="What it plays, and what decides whether it held."))
    async def described(request: Request, name: str) -> Response:
        """One scenario of the library."""
        desk.check(desk.caller(request), "GET /v1/scenarios")
        return tagged(request, rehearsing.describe(name))

    @router.post(
        "/scenarios/{name}/runs",
        status_code=202,
        openapi_extra=wants(RehearsalWish),
        responses=says(dict[str, Any], status=202, what="The run that began."),
    )
    async def begin(request: Request, name: str) -> Response:
        """Rehearse it on this service, one at a time, in a tenant of its own. It uses the shards that serve everybody: not at noon."""
        caller = may(request)
        wish = await body_of(request, RehearsalWish)
        run = await rehearsing.start(caller.identity.tenant, name, venue=wish.venue, faults=wish.faults)
        _note(audit, caller, "rehearsal.start", run["run"])
        return answer(run, 202, {"Location": f"/v1/runs/{run['run']}"})

    @router.get("/runs", responses=says(dict[str, Any], what="Rehearsals of the tenant, newest first."))
    async def listed(request: Request) -> Response:
        return tagged(request, {"runs": await rehearsing.runs(may(request).identity.tenant)})

    @router.get("/runs/{run}", responses=says(dict[str, Any], what="Where it stands, and its picture so far."))
    async def followed(request: Request, run: str) -> Response:
        return tagged(request, await rehearsing.run(may(request).identity.tenant, run))

    @router.delete("/runs/{run}", responses=says(dict[str, Any], what="The run, stopped or as it had ended."))
    async def stopped(request: Request, run: str) -> Response:
        """Stop it; its people are gone when this is answered. The report of a run that was stopped is never written."""
        caller = may(request)
        held = await rehearsing.stop(caller.identity.tenant, run)
        _note(audit, caller, "rehearsal.stop", run)
        return answer(held, 200)

    @router.get("/runs/{run}/recording", responses=says(dict[str, Any], what="Names and bytes of the recording's files."))
    async def recorded(request: Request, run: str) -> Response:
        folder = await whose(request, run) / "recording"
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
        return tagged(request, {"files": [{"name": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size} for path in files]})

    @router.get("/runs/{run}/recording/{name:path}", response_class=FileResponse)
    async def recording(request: Request, run: str, name: str) -> Response:
        """One file of the recording."""
        return _file(await whose(request, run) / "recording", name, "application/octet-stream")

    @router.get("/runs/{run}/{report}", response_class=FileResponse)
    async def report(request: Request, run: str, report: str) -> Response:
        """`report.html`, which opens from disk, or `report.json`."""
        folder = await whose(request, run)
        if report not in REPORTS:
            raise NotFound(f"run {run}: there is no {report[:80]!r}; it has {', '.join(REPORTS)} and recording")
        return _file(folder, report, REPORTS[report])

    async def whose(request: Request, run: str) -> Path:
        """The folder of a run of the caller's tenant. Raises Forbidden, NotFound."""
        held = await rehearsing.run(may(request).identity.tenant, run)
        return rehearsing.folder(held["run"])

    return router


def _file(folder: Path, name: str, media_type: str) -> Response:
    """A file of a folder and of no other place. Raises NotFound."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise NotFound(f"{name[:80]!r}: there is no such file; a report is written when a run has ended by itself")
    return FileResponse(path, media_type=media_type, filename=path.name, headers={"Cache-Control": "no-store"})


def _note(audit: AuditTrail | None, caller: Caller, what: str, target: str) -> None:
    if audit is not None:
        audit.note(tenant=caller.identity.tenant, who=who_is(caller.identity), what=what, target=target, origin=caller.origin)
