"""The OpenAPI document, complete: what each request wants and each answer says, from the same types that check and write them; and how every refusal looks.

Owns the translation of our structs into JSON Schema and the reading of bodies; paths and their meaning are the routes'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from fastapi import FastAPI, Request

from esplanade.core.errors import InvalidInput

MAX_BODY_BYTES: Final = 256 * 1024
REF: Final = "#/components/schemas/{name}"
PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "For people: the value, the rule, the remedy."},
        "code": {"type": "string", "description": "One of docs/protocol.md, or a rule's own."},
    },
}
"""RFC 9457, with our code."""

T = TypeVar("T")
_named: dict[str, Any] = {}
"""Schemas that paths refer to."""


def schema_of(kind: Any) -> dict[str, Any]:
    [schema], named = msgspec.json.schema_components([kind], ref_template=REF)
    _named.update(named)
    return schema


def wants(kind: Any) -> dict[str, Any]:
    """`openapi_extra` of a route whose body is `kind`."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema_of(kind)}}}}


def says(kind: Any, *, status: int = 200, what: str = "As asked for.") -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that answers `kind`."""
    return {status: {"description": what, "content": {"application/json": {"schema": schema_of(kind)}}}}


async def raw_body(request: Request) -> bytes:
    """The body, which may not be too long. Raises InvalidInput."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise InvalidInput(f"a body of more than {MAX_BODY_BYTES} bytes: send less at once")
        parts.append(part)
    return b"".join(parts)


async def body_of(request: Request, kind: type[T]) -> T:
    """The body as the type that the document says. Raises InvalidInput naming the field."""
    raw = await raw_body(request)
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"body: {error}; see /v1/openapi.json") from error


def complete(app: FastAPI) -> None:
    """Have the application's document hold our schemas, say that a token is wanted, and say of every operation how it refuses."""
    plain: Callable[[], dict[str, Any]] = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = plain()
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        schemas.update(_named)
        schemas["Problem"] = PROBLEM
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
        refusal = {
            "description": "Refused: problem details.",
            "content": {"application/problem+json": {"schema": {"$ref": REF.format(name="Problem")}}},
        }
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                operation["responses"].update({"4XX": refusal, "5XX": refusal})
                if path.startswith(("/v1/", "/graphql")) and "security" not in operation:
                    operation["security"] = [{"token": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
