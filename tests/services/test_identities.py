"""The real service over TLS: everybody who may come in does, by their own door, and is out the moment a command says so."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pyotp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from esplanade.cli.main import _cli
from gateway.codes import CloseCode
from gateway.token_routes import CODE
from gateway.tokens import challenge_of
from tests.gateway.mail_server import PASSWORD as MAIL_PASSWORD
from tests.gateway.mail_server import USER, MailServer, mail_server
from tests.gateway.mall import until
from tests.gateway.test_identity_server import certify, closed, said_hello, trusting
from tests.services.stack import Esplanade, data_folder

pytestmark = pytest.mark.services

PASSWORD = "correct horse battery staple"
VERIFIER = "v" * 50
WHERE = ("--tenant", "demo")


def command(data: Path, *arguments: str) -> str:
    """What a command prints; within this process, since each start of Python costs seconds."""
    result = CliRunner().invoke(_cli, [*arguments, "--data-dir", str(data)])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stdout.strip()


async def says(data: Path, *arguments: str) -> str:
    return await asyncio.to_thread(command, data, *arguments)


def settings(folder: Path, key: Ed25519PrivateKey) -> dict[str, str]:
    chain, secret = certify(folder, "one", 1)
    public = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key())) | {"kid": "k1"}
    (folder / "jwks.json").write_text(json.dumps({"keys": [public]}))
    issuer = {
        "issuer": "https://id.example",
        "audience": "mall",
        "jwks": str(folder / "jwks.json"),
        "tenant": "demo",
        "role_claim": "r",
        "roles": {"boss": "operator"},
    }
    return {
        "ESPLANADE_TLS_CERTIFICATE": str(chain),
        "ESPLANADE_TLS_KEY": str(secret),
        "ESPLANADE_CODE_PROVIDER": "simulator",
        "ESPLANADE_ISSUERS": json.dumps([issuer]),
        "ESPLANADE_PLANS": json.dumps({"small": {"requests_per_s": 1000}}),
        "ESPLANADE_DEFAULT_PLAN": "small",
    }


async def granted(http: httpx.AsyncClient, **form: str) -> dict[str, Any]:
    reply = await http.post("v1/token", data=form)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


async def by_phone(http: httpx.AsyncClient, data: Path, before: int) -> dict[str, Any]:
    """Sign in by a code; `before`: codes that were sent before."""
    request = (await http.post("v1/sign-in/code", json={"tenant": "demo", "channel": "sms", "address": "+491701234567"})).json()["request"]
    messages = data / "messages.jsonl"
    await until(lambda: messages.exists() and messages.read_text().count("\n") > before)
    code = json.loads(messages.read_text().splitlines()[-1])["text"][:6]
    return await granted(http, grant_type=CODE, request=request, code=code)


async def by_mail(http: httpx.AsyncClient, mail: MailServer) -> dict[str, Any]:
    request = (await http.post("v1/sign-in/code", json={"tenant": "demo", "channel": "email", "address": "bea@example.org"})).json()["request"]
    await until(lambda: bool(mail.mails))
    return await granted(http, grant_type=CODE, request=request, code=mail.mails[-1].get_content()[:6])


async def test_everybody_comes_in_by_their_own_door_and_is_out_at_once(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    env = settings(tmp_path, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(env["ESPLANADE_TLS_CERTIFICATE"], env["ESPLANADE_TLS_KEY"])
    async with mail_server(context) as mail:
        smtp = {
            "host": "127.0.0.1",
            "port": mail.port,
            "sender": "codes@mall.example",
            "username": USER,
            "certificates": env["ESPLANADE_TLS_CERTIFICATE"],
        }
        await everybody(tmp_path, key, env | {"ESPLANADE_SMTP": json.dumps(smtp), "ESPLANADE_SMTP_PASSWORD": MAIL_PASSWORD}, mail)


async def everybody(tmp_path: Path, key: Ed25519PrivateKey, env: dict[str, str], mail: MailServer) -> None:
    with data_folder() as data, Esplanade(data, "serve", env=env) as service:
        service.ready()
        assert (urlsplit(service.api).scheme, urlsplit(service.ws).scheme) == ("https", "wss")
        tls = trusting()
        async with httpx.AsyncClient(base_url=service.api, verify=tls, timeout=60) as http:
            welcomes = []

            async def come_in(token: str) -> Any:
                ws = await said_hello(service.ws + "v1/ws", token, ssl=tls)
                welcomes.append(json.loads(await ws.recv()))
                assert welcomes[-1]["op"] == "welcome", welcomes[-1]
                return ws

            # a phone, by a code
            phone = await by_phone(http, data, 0)
            by_code = await come_in(phone["access_token"])

            # somebody without one, by a code that the mail server got
            assert (await by_mail(http, mail))["subject"] != phone["subject"]
            assert mail.encrypted == [True]
            service.says("sign-in codes over SMS are simulated")
            assert not any(secret in service.text for secret in (MAIL_PASSWORD, "bea@example.org"))

            # a till, by a key
            secret = await says(data, "keys", "create", "till 1", "--permission", "wallets.read", "--permission", "venue.read", *WHERE)
            by_key = await come_in(secret)
            rest = await http.get("v1/venues", headers={"Authorization": f"Bearer {secret}"})
            assert rest.status_code == 200
            assert (await http.get("v1/books", headers={"Authorization": f"Bearer {secret}"})).status_code == 403

            # an operator, by password and second factor
            (tmp_path / "password").write_text(PASSWORD)
            await says(data, "operators", "add", "ann", "--password-file", str(tmp_path / "password"), *WHERE)
            totp = pyotp.TOTP(parse_qs(urlsplit(await says(data, "operators", "second-factor", "ann", *WHERE)).query)["secret"][0])
            wanted = {
                "response_type": "code", "client_id": "cli", "redirect_uri": "http://127.0.0.1:4711/", "code_challenge": challenge_of(VERIFIER),
                "code_challenge_method": "S256",
            }  # fmt: skip
            form = wanted | {"tenant": "demo", "name": "ann", "password": PASSWORD, "otp": totp.generate_otp(int(time.time()) // 30)}
            answer = await http.post("v1/authorize", data=form)
            assert answer.status_code == 303, answer.text
            code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
            redeem = {"code": code, "code_verifier": VERIFIER, "client_id": "cli", "redirect_uri": "http://127.0.0.1:4711/"}
            ann = await granted(http, grant_type="authorization_code", **redeem)
            by_password = await come_in(ann["access_token"])

            # somebody of an issuer
            now = int(time.time())
            claims = {"iss": "https://id.example", "aud": "mall", "sub": "u1", "iat": now, "exp": now + 600, "r": "boss"}
            foreign = jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": "k1"})
            by_issuer = await come_in(foreign)
            assert [said["role"] for said in welcomes] == ["shopper", "operator", "operator", "operator"]
            assert (await http.get("v1/books", headers={"Authorization": f"Bearer {foreign}"})).status_code == 200

            # and out
            key_id = secret.split("_")[1]
            await says(data, "keys", "revoke", key_id, *WHERE)
            await says(data, "operators", "change", "ann", "--disable", *WHERE)
            await says(data, "revoke", "--subject", str(phone["subject"]), *WHERE)
            for ws in (by_key, by_password, by_code):
                assert await closed(ws) == CloseCode.REVOKED
            for token in (secret, ann["access_token"], phone["access_token"]):
                assert (await http.get("v1/venues", headers={"Authorization": f"Bearer {token}"})).status_code == 401
            await by_issuer.send('{"op":"ping","seq":1}')
            assert "pong" in await by_issuer.recv()
            await by_issuer.close()

            # who is erased is somebody new when they come back
            await says(data, "subject", "erase", str(phone["subject"]), "--yes", *WHERE)
            assert (await by_phone(http, data, 1))["subject"] != phone["subject"]

            acts = [json.loads(line)["what"] for line in (await says(data, "audit", "--json", *WHERE)).splitlines() if line]
            assert set(acts) >= {"sign_in", "key.create", "key.revoke", "operator.add", "operator.second_factor", "operator.change", "subject.revoke"}
            told = service.text + json.dumps(acts) + await says(data, "keys", "list", *WHERE)
            for secret_text in (secret, PASSWORD, code, phone["refresh_token"], phone["access_token"], totp.secret):
                assert secret_text not in told
