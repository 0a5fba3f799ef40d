"""OAuth 2.0 over HTTP: tokens, revocation, the key set, codes, and the sign-in page of operators.

Owns the forms and their errors (RFC 6749, 5.2); who gets what is `gateway.tokens`' and `gateway.sign_in`'s. The code flow has PKCE with S256, always (RFC 7636).
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any, Final, Literal, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from esplanade.core.clock import SystemClock
from esplanade.core.errors import EsplanadeError, Forbidden, InvalidInput, LimitExceeded, NotFound, Unauthenticated, Unavailable
from esplanade.storage.identity import IdentityStore, OneTime
from esplanade.storage.sealing import Random
from gateway.auth import BadToken, Identity, base64url
from gateway.credentials import Credentials
from gateway.openapi import says
from gateway.permissions import Role
from gateway.sign_in import CODE_S, CodeDesk, OperatorDesk
from gateway.signing_keys import SigningKeys
from gateway.tokens import Pair, TokenDesk, challenge_of

MAX_FORM_BYTES: Final = 16 * 1024
AUTHORIZATION_S: Final = 60.0
"""How long an authorization code counts."""
GUEST: Final = "urn:esplanade:params:oauth:grant-type:guest"
CODE: Final = "urn:esplanade:params:oauth:grant-type:code"
SECOND_FACTOR: Final = "urn:esplanade:params:oauth:grant-type:second-factor"
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
GRANTS: Final = ("authorization_code", "refresh_token", EXCHANGE, GUEST, CODE, SECOND_FACTOR)
LOOPBACK: Final = re.compile(r"http://(127\.0\.0\.1|\[::1\]):[0-9]{1,5}/")
"""Where a command on the operator's own machine listens (RFC 8252, 7.3)."""
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")


GIVEN: Final = ("refresh_token", "code", "code_verifier", "client_id", "redirect_uri", "tenant", "request", "subject_token", "access_token")
"""What goes with one grant or another."""


STRANGERS: Final[dict[str, Any]] = {"security": []}
"""Of the OpenAPI document: who comes in has no token yet."""


def _form_of(required: str, *others: str) -> dict[str, Any]:
    """A form's part of the OpenAPI document."""
    schema = {"type": "object", "required": [required], "properties": {name: {"type": "string"} for name in (required, *others)}}
    return STRANGERS | {"requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": schema}}}}


_OAUTH_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "error, error_description (RFC 6749, 5.2)"},
    413: {"description": "a form of more than 16 KiB"},
    429: {"description": "too often from this address, or by this tenant"},
}


class CodeRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tenant: str = Field(min_length=1, max_length=128)
    channel: Literal["sms", "email"]
    address: str = Field(min_length=3, max_length=320)


class CodeSent(msgspec.Struct):
    """`request`: goes to /v1/token with the code that was sent."""

    request: str
    expires_in: int


class _Authorization(msgspec.Struct):
    """What an authorization code stands for."""

    subject: int
    role: str
    client: str
    redirect_uri: str
    challenge: str
    strong_unix_s: float


class OAuthError(Exception):
    def __init__(self, error: str, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.error = error
        self.why = why
        self.status = status


@dataclass(frozen=True, slots=True)
class Doors:
    """What the routes lead to. `codes`, `operators`: None where there is no such sign-in."""

    store: IdentityStore
    credentials: Credentials
    tokens: TokenDesk
    keys: SigningKeys | None
    codes: CodeDesk | None
    operators: OperatorDesk | None
    clock: SystemClock
    random: Random
    guests: bool = True


def token_routes(doors: Doors) -> APIRouter:
    router = APIRouter(tags=["sign-in"])

    @router.get("/.well-known/jwks.json", include_in_schema=False)
    async def jwks() -> Response:
        body = {"keys": []} if doors.keys is None else doors.keys.jwks()
        return JSONResponse(body, headers={"Cache-Control": "public, max-age=300"}, media_type="application/jwk-set+json")

    @router.get("/.well-known/oauth-authorization-server", include_in_schema=False)
    async def server(request: Request) -> JSONResponse:
        """RFC 8414."""
        base = _base(request)
        return JSONResponse(
            {
                "issuer": base,
                "authorization_endpoint": f"{base}/v1/authorize",
                "token_endpoint": f"{base}/v1/token",
                "revocation_endpoint": f"{base}/v1/revoke",
                "jwks_uri": f"{base}/.well-known/jwks.json",
                "response_types_supported": ["code"],
                "grant_types_supported": list(GRANTS),
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["none"],
            }
        )

    @router.post("/v1/token", openapi_extra=_form_of("grant_type", *GIVEN), responses=_OAUTH_ERRORS)
    async def token(request: Request) -> JSONResponse:
        """A form, as RFC 6749 has it: `grant_type` and what goes with it (docs/security.md). Answers access_token, refresh_token, expires_in."""
        try:
            return _granted(await _grant(doors, await _form(request), _origin(request)))
        except OAuthError as refused:
            return _oauth_error(refused)
        except (BadToken, Unauthenticated) as error:
            return _oauth_error(OAuthError("invalid_grant", error.message))
        except NotFound as error:
            return _oauth_error(OAuthError("invalid_request", error.message))

    @router.post("/v1/revoke", openapi_extra=_form_of("token"), responses=_OAUTH_ERRORS, response_class=Response)
    async def revoke(request: Request) -> Response:
        """RFC 7009: end the sign-in that `token` (of either kind) came of. Answers 200 whether or not there was one."""
        try:
            form = await _form(request)
        except OAuthError as refused:
            return _oauth_error(refused)
        family = await _family_of(doors, form.get("token", ""))
        if family is not None:
            tenant, name, who = family
            await doors.tokens.revoke("family", tenant, name, who=who, origin=_origin(request))
        return Response(status_code=200, headers=_UNKEPT)

    @router.post(
        "/v1/sign-in/code", status_code=202, openapi_extra=STRANGERS, responses=says(CodeSent, status=202, what="It is on its way, if it can be.")
    )
    async def code(wanted: CodeRequest, request: Request) -> JSONResponse:
        """Send a code to a phone or mailbox. `request` goes to /v1/token together with the code. Says the same whoever is asked for; 503 where codes cannot be sent now, to anybody."""
        if doors.codes is None:
            raise Forbidden("sign-in by code is off here (code_provider): sign in another way")
        asked = await doors.codes.request(wanted.tenant, wanted.channel, wanted.address, origin=_origin(request))
        return JSONResponse(msgspec.to_builtins(CodeSent(asked, round(CODE_S))), 202, headers=_UNKEPT)

    @router.get("/v1/authorize", include_in_schema=False)
    async def page(request: Request) -> Response:
        """The sign-in page of operators."""
        return _page(request, _wanted(dict(request.query_params), _base(request)), "")

    @router.post("/v1/authorize", include_in_schema=False)
    async def authorize(request: Request) -> Response:
        if doors.operators is None:
            raise Forbidden("operators cannot sign in with a password here: present a token of their issuer")
        if request.headers.get("origin") not in (None, _base(request)) or request.headers.get("sec-fetch-site", "same-origin") not in (
            "same-origin",
            "none",
        ):
            raise Forbidden("sign-in answers to its own page only")
        try:
            form = await _form(request)
        except OAuthError as refused:
            raise InvalidInput(refused.why) from refused
        wanted = _wanted(form, _base(request))
        try:
            operator, strong = await doors.operators.check(
                form.get("tenant", ""), form.get("name", ""), form.get("password", ""), form.get("otp", ""), origin=_origin(request)
            )
        except (Unauthenticated, LimitExceeded, Unavailable) as error:
            return _page(request, wanted | {"tenant": form.get("tenant", "")}, error.message, 401)
        now_ms = doors.clock.unix_ms()
        code = base64url(doors.random(32))
        kept = _Authorization(
            operator.subject, operator.role, wanted["client_id"], wanted["redirect_uri"], wanted["code_challenge"], now_ms / 1000 if strong else 0.0
        )
        await doors.store.keep_once(
            "authorization", _digest(code), OneTime(operator.tenant, msgspec.msgpack.encode(kept)), now_ms + round(AUTHORIZATION_S * 1000)
        )
        answer = {"code": code} | ({"state": wanted["state"]} if wanted["state"] else {})
        return RedirectResponse(f"{wanted['redirect_uri']}?{urlencode(answer)}", 303, headers=_UNKEPT)

    return router


_UNKEPT: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


async def _grant(doors: Doors, form: dict[str, str], origin: str) -> Pair:
    client = form.get("client_id", "")
    match form.get("grant_type", ""):
        case "refresh_token":
            return await doors.tokens.refresh(_given(form, "refresh_token"), origin=origin)
        case "authorization_code":
            return await _authorized(doors, form, origin)
        case grant if grant == EXCHANGE:
            return await doors.tokens.exchange(_given(form, "subject_token"), client=client, origin=origin)
        case "guest" | "urn:esplanade:params:oauth:grant-type:guest":
            if not doors.guests:
                raise OAuthError("unauthorized_client", "guests are not allowed here: sign in")
            return await doors.tokens.guest(_given(form, "tenant"), client=client, origin=origin)
        case grant if grant == CODE:
            if doors.codes is None:
                raise OAuthError("unauthorized_client", "sign-in by code is off here (code_provider): sign in another way")
            tenant, subject = await doors.codes.verify(_given(form, "request"), _given(form, "code"), origin=origin)
            return await doors.tokens.begin(subject, tenant, "shopper", client=client, origin=origin)
        case grant if grant == SECOND_FACTOR:
            identity = await doors.credentials.identify(_given(form, "access_token"))
            if doors.operators is None or not identity.family:
                raise OAuthError("unauthorized_client", "this token came of no sign-in of an operator here")
            await doors.operators.step_up(identity.tenant, identity.subject, _given(form, "code"), origin=origin)
            return doors.tokens.stronger(identity, origin=origin)
        case other:
            raise OAuthError("unsupported_grant_type", f"grant_type {other[:100]!r}: must be one of {', '.join(GRANTS)}")


async def _authorized(doors: Doors, form: dict[str, str], origin: str) -> Pair:
    refused = OAuthError("invalid_grant", "this code is wrong, was used, or has run out; sign in again")
    verifier = _given(form, "code_verifier")
    # The code is spent before anything is compared: one that was caught on its way gets one guess.
    once = await doors.store.spend("authorization", _digest(_given(form, "code")), doors.clock.unix_ms())
    if once is None or not _VERIFIER.fullmatch(verifier):
        raise refused
    kept = msgspec.msgpack.decode(once.body, type=_Authorization)
    if (kept.client, kept.redirect_uri, kept.challenge) != (form.get("client_id"), form.get("redirect_uri"), challenge_of(verifier)):
        raise refused
    return await doors.tokens.begin(
        kept.subject, once.tenant, cast("Role", kept.role), client=kept.client, origin=origin, strong_unix_s=kept.strong_unix_s
    )  # fmt: skip


async def _family_of(doors: Doors, token: str) -> tuple[str, str, str] | None:
    """(tenant, family, who) of an access token, or of a refresh token, which is spent by this."""
    try:
        identity = (await doors.tokens.refresh(token, origin="")).identity if token.startswith("esr_") else await doors.credentials.identify(token)
    except EsplanadeError:
        return None
    return (identity.tenant, identity.family, f"{identity.role}:{identity.subject}") if identity.family else None


def _wanted(given: dict[str, str], base: str) -> dict[str, str]:
    """The parameters of an authorization request. Raises InvalidInput: nothing is sent to an address that is not allowed, an error neither."""
    client, redirect = given.get("client_id", ""), given.get("redirect_uri", "")
    allowed = redirect == f"{base}/" if client == "console" else client == "cli" and LOOPBACK.fullmatch(redirect) is not None
    if not allowed:
        raise InvalidInput(
            f"client_id {client[:100]!r} with redirect_uri {redirect[:200]!r}: console returns to {base}/, cli to http://127.0.0.1:<port>/"
        )
    if (
        given.get("response_type") != "code"
        or given.get("code_challenge_method") != "S256"
        or not _CHALLENGE.fullmatch(given.get("code_challenge", ""))
    ):
        raise InvalidInput("response_type must be code, with a code_challenge of method S256 (PKCE); mend the client")
    state = given.get("state", "")
    if len(state) > 512:
        raise InvalidInput(f"state of {len(state)} characters: at most 512")
    return {
        "client_id": client,
        "redirect_uri": redirect,
        "response_type": "code",
        "code_challenge": given["code_challenge"],
        "code_challenge_method": "S256",
        "state": state,
    }


def _page(request: Request, wanted: dict[str, str], message: str, status: int = 200) -> HTMLResponse:
    hidden = "".join(
        f'<input type=hidden name="{name}" value="{html.escape(value, quote=True)}">' for name, value in wanted.items() if name != "tenant"
    )  # fmt: skip
    tenant = html.escape(wanted.get("tenant") or request.query_params.get("tenant", ""), quote=True)
    said = f"<p role=alert>{html.escape(message)}</p>" if message else ""
    target = urlsplit(wanted["redirect_uri"])
    body = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>Sign in to Esplanade</title>"
        f"<h1>Sign in</h1>{said}<form method=post action=/v1/authorize>{hidden}"
        f'<p><label>Tenant <input name=tenant required maxlength=128 value="{tenant}"></label>'
        "<p><label>Name <input name=name required maxlength=128 autocomplete=username></label>"
        "<p><label>Password <input name=password type=password required maxlength=256 autocomplete=current-password></label>"
        "<p><label>Code of your second factor, if you have one <input name=otp inputmode=numeric maxlength=6 autocomplete=one-time-code></label>"
        "<p><button>Sign in</button></form></html>"
    )
    policy = f"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'; form-action 'self' {target.scheme}://{target.netloc}"
    # Without a referrer a browser would say `Origin: null` with the form, as it does for a page that hides where it is.
    return HTMLResponse(body, status, headers=_UNKEPT | {"Content-Security-Policy": policy, "Referrer-Policy": "same-origin"})


async def _form(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "send a form: Content-Type application/x-www-form-urlencoded")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM_BYTES:
            raise OAuthError("invalid_request", f"a form of more than {MAX_FORM_BYTES} bytes", 413)
    try:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=32)
    except ValueError as error:
        raise OAuthError("invalid_request", "the form cannot be read: send name=value pairs in UTF-8, 32 at most") from error
    form = dict(pairs)
    if len(form) != len(pairs):
        raise OAuthError("invalid_request", "a name comes twice: send each once")
    return form


def _given(form: dict[str, str], name: str) -> str:
    value = form.get(name, "")
    if not value:
        raise OAuthError("invalid_request", f"{name} is missing")
    return value


def _granted(pair: Pair) -> JSONResponse:
    identity: Identity = pair.identity
    body: dict[str, Any] = {"access_token": pair.access_token, "token_type": "Bearer", "expires_in": pair.expires_in}
    if pair.refresh_token:
        body["refresh_token"] = pair.refresh_token
    body |= {"subject": identity.subject, "tenant": identity.tenant, "role": identity.role, "second_factor": identity.strong_unix_s > 0}
    return JSONResponse(body, headers=_UNKEPT)


def _oauth_error(refused: OAuthError) -> JSONResponse:
    return JSONResponse({"error": refused.error, "error_description": refused.why}, refused.status, headers=_UNKEPT)


def _digest(code: str) -> str:
    return challenge_of(code)


def _base(request: Request) -> str:
    return f"{request.url.scheme}://{request.headers.get('host', '')}"


def _origin(request: Request) -> str:
    return request.client.host if request.client is not None else ""
