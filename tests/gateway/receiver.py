"""A partner's server on loopback that keeps what it is sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response

from gateway.api import serve_api


@dataclass
class Receiver:
    """`answers`: statuses for what comes next; after them, `status`."""

    url: str = ""
    status: int = 204
    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def offsets(self) -> list[int]:
        return [json.loads(body)["place"]["offset"] for _, body in self.got]

    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, body in self.got]


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = FastAPI()

    @app.post("/{path:path}")
    async def take(request: Request, path: str) -> Response:
        receiver.got.append((dict(request.headers), await request.body()))
        status = receiver.answers.pop(0) if receiver.answers else receiver.status
        return Response(status_code=status, headers={"location": "http://127.0.0.1:1/elsewhere"} if 300 <= status < 400 else None)

    server = await serve_api(app)
    receiver.url = f"http://127.0.0.1:{server.port}/hook?a=1"
    try:
        yield receiver
    finally:
        await server.stop()
