"""`esplanade login`: an operator signs in with the browser, and the command gets a token (OAuth 2.0 for native apps, RFC 8252: code flow with PKCE, answered on loopback)."""

from __future__ import annotations

import http.server
import secrets
import time
from typing import Annotated, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import typer
from rich.console import Console

from esplanade.cli.options import Config, DataDir
from esplanade.core.errors import Forbidden, InvalidInput, Unauthenticated, Unavailable
from esplanade.settings import load_settings

WAIT_S: Final = 300.0
MAX_REQUESTS: Final = 20
"""Of the browser, until one brings the answer: it asks for an icon too."""

_err = Console(stderr=True)


def login(
    api: Annotated[
        str | None, typer.Option("--api", help="Address of the service's API; by default that of the service on the data directory.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Tenant, filled in on the page.")] = "",
    wait_s: Annotated[float, typer.Option(min=1, max=3600, help="How long to wait for the browser.")] = WAIT_S,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Sign in as an operator: open the address that is printed, then have the access token on standard output (for `--token`)."""
    from esplanade.whereabouts import find
    from gateway.tokens import challenge_of

    base = (api or find(load_settings(config=config, data_dir=data_dir).data_dir).api_url).rstrip("/")
    if urlsplit(base).scheme not in ("http", "https"):
        raise InvalidInput(f"--api {base}: must begin with http:// or https://")
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
    with _Listener(("127.0.0.1", 0), _Answer) as listener:
        redirect = f"http://127.0.0.1:{listener.server_address[1]}/"
        wanted = {
            "response_type": "code", "client_id": "cli", "redirect_uri": redirect, "state": state,
            "code_challenge": challenge_of(verifier), "code_challenge_method": "S256",
        } | ({"tenant": tenant} if tenant else {})  # fmt: skip
        _err.print(f"open in a browser on this machine:\n{base}/v1/authorize?{urlencode(wanted)}", highlight=False, soft_wrap=True)
        answer = listener.answer(wait_s)
    if not secrets.compare_digest(answer.get("state", [""])[0], state):
        raise Forbidden("the answer was to another request: sign in again")
    print(_redeemed(base, answer["code"][0], verifier, redirect))


def _redeemed(base: str, code: str, verifier: str, redirect: str) -> str:
    import httpx

    form = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier, "client_id": "cli", "redirect_uri": redirect}
    try:
        reply = httpx.post(f"{base}/v1/token", data=form, timeout=10.0)
    except httpx.HTTPError as error:
        raise Unavailable(f"{base} does not answer: {type(error).__name__}") from error
    if reply.status_code != 200:
        raise Unauthenticated(f"{base} gave no token: {reply.text[:300]}")
    return str(reply.json()["access_token"])


class _Listener(http.server.HTTPServer):
    answered: dict[str, list[str]] | None = None

    def answer(self, wait_s: float) -> dict[str, list[str]]:
        """What the browser brings. Raises Unavailable."""
        ends = time.monotonic() + wait_s
        for _ in range(MAX_REQUESTS):
            self.timeout = max(0.0, ends - time.monotonic())
            self.handle_request()
            if self.answered is not None:
                return self.answered
            if time.monotonic() >= ends:
                break
        raise Unavailable(f"nobody signed in within {wait_s:.0f} s: run the command again")


class _Answer(http.server.BaseHTTPRequestHandler):
    timeout = 5.0  # a browser that opens a connection ahead of need and says nothing

    def do_GET(self) -> None:
        assert isinstance(self.server, _Listener)
        asked = urlsplit(self.path)
        given = parse_qs(asked.query)
        if asked.path == "/" and "code" in given:
            self.server.answered = given
        body = b"<!doctype html><title>Esplanade</title><p>Signed in. You can close this window."
        self.send_response(200 if self.server.answered is not None else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the path has the code in it."""
