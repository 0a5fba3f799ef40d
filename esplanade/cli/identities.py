"""`esplanade keys`, `esplanade operators`, `esplanade revoke`: who may come in. They work on the deployment's database, beside a service or without one.

Every change is a line in the audit trail before the command ends. What a running service knows of a key, a person or a sign-in ends at once: its gateways hear of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from esplanade.cli.options import Config, DataDir, age_ms
from esplanade.core.errors import InvalidInput, NotFound
from esplanade.settings import load_settings

if TYPE_CHECKING:
    from esplanade.storage.identity import RevocationKind

keys_app = typer.Typer(no_args_is_help=True)
operators_app = typer.Typer(no_args_is_help=True)
_out = Console()
_err = Console(stderr=True)

Tenant = Annotated[str, typer.Option(help="Tenant.")]
Name = Annotated[str, typer.Argument(help="The operator's name.")]
KeyId = Annotated[str, typer.Argument(help="Id of the key, as `keys list` has it.")]
Sure = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
T = TypeVar("T")

OVERLAP = "24h"


class _Desk:
    """What the commands work with."""

    def __init__(self, url: str, store: Any, catalogue: Any, vault: Any, log: Any) -> None:
        self.url = url
        self.store = store
        self.catalogue = catalogue
        self.vault = vault
        self.log = log

    async def note(self, tenant: str, what: str, target: str, **detail: str | int | float | bool | None) -> None:
        from esplanade.storage.audit import AuditLine

        await self.log.append([AuditLine(os.urandom(16), tenant, _now_ms(), "local", what, target, "esplanade", "done", detail)])

    async def revoke(self, tenant: str, kind: RevocationKind, what: str) -> bool:
        from esplanade.storage.identity import Revocation
        from gateway.signing_keys import KEEP_S

        now_ms = _now_ms()
        done: bool = await self.store.revoke(Revocation(tenant, kind, what, now_ms, now_ms + round(KEEP_S * 1000)))
        if done:
            await self.note(tenant, f"{kind}.revoke", what)
        return done


@contextlib.asynccontextmanager
async def _opened(url: str, master_key: bytes | None) -> AsyncIterator[_Desk]:
    from esplanade.identities import open_vault
    from esplanade.storage.postgres_audit import PostgresAudit
    from esplanade.storage.postgres_catalogue import PostgresCatalogue
    from esplanade.storage.postgres_identity import PostgresIdentity

    async with contextlib.AsyncExitStack() as stack:
        store = await PostgresIdentity.open(url, connections=1)
        stack.push_async_callback(store.close)
        catalogue = await PostgresCatalogue.open(url, connections=1)
        stack.push_async_callback(catalogue.close)
        log = await PostgresAudit.open(url)
        stack.push_async_callback(log.close)
        yield _Desk(url, store, catalogue, await open_vault(catalogue, master_key), log)


def _at_desk(config: Path | None, data_dir: Path | None, work: Callable[[_Desk], Awaitable[T]]) -> T:
    from esplanade.database import opened_database

    settings = load_settings(config=config, data_dir=data_dir)

    async def run(url: str) -> T:
        async with _opened(url, settings.master_key_bytes) as desk:
            return await work(desk)

    with opened_database(settings) as url:
        return asyncio.run(run(url))


# --- keys ---------------------------------------------------------------------------------------------------------------


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What it is for, such as `till of stand 7`.")],
    tenant: Tenant,
    role: Annotated[str, typer.Option(help="Role whose rights it has: operator, feed, engineer.")] = "operator",
    permission: Annotated[list[str] | None, typer.Option(help="Confine it to this permission of the role (repeatable; docs/permissions.md).")] = None,
    venue: Annotated[str | None, typer.Option(help="Confine it to this venue.")] = None,
    unit: Annotated[str | None, typer.Option(help="Confine it to this stand of the venue.")] = None,
    source: Annotated[str | None, typer.Option(help="Of a feed: the source that it drives.")] = None,
    expires: Annotated[str | None, typer.Option(help="Ends after so long, such as 90d; by default never.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Make an API key, or a till's. Its secret is printed, once: only a hash of it is kept."""
    from esplanade.core.ids import check_name
    from esplanade.storage.identity import ApiKey
    from gateway.permissions import GRANTED, ROLES, Permission

    if role not in ROLES or role in ("guest", "shopper"):
        raise InvalidInput(f"role {role!r}: must be operator, feed or engineer; people sign in")
    permissions = None if not permission else tuple(dict.fromkeys(permission))
    wrong = sorted(set(permissions or ()) - set(get_args(Permission)))
    if wrong or (permissions is not None and not set(permissions) & set(GRANTED[role])):
        raise InvalidInput(
            f"permissions {', '.join(wrong or permissions or ())}: role {role} has {', '.join(sorted(GRANTED[role]))}; take some of these"
        )
    if unit is not None and venue is None:
        raise InvalidInput(f"unit {unit!r} without a venue: give --venue too")
    for value, what in ((tenant, "tenant"), (venue, "venue"), (unit, "unit"), (source, "source")):
        if value is not None:
            check_name(value, what)
    if not 1 <= len(name) <= 128 or not name.isprintable():
        raise InvalidInput(f"name of {len(name)} characters: must have 1 to 128 that can be printed")
    until = None if expires is None else _now_ms() + age_ms(expires)

    async def make(desk: _Desk) -> tuple[str, str]:
        from gateway.auth import digest_of

        id, secret = _new_secret()
        subject = await desk.catalogue.next_subject(tenant)
        await desk.store.add_key(ApiKey(id, tenant, name, role, permissions, venue, unit, source, subject, _now_ms(), until), digest_of(secret))
        scope = ",".join(permissions or ()) or "all"
        await desk.note(tenant, "key.create", id, name=name, role=role, permissions=scope, venue=venue, unit=unit, expires_ms=until)
        return id, secret

    id, secret = _at_desk(config, data_dir, make)
    _err.print(f"key {id}; this is its secret, which is not shown again:", highlight=False)
    print(secret)


@keys_app.command("list")
def list_keys(tenant: Tenant, data_dir: DataDir = None, config: Config = None) -> None:
    """Name a tenant's keys."""
    held = _at_desk(config, data_dir, lambda desk: desk.store.keys(tenant))
    table = Table("id", "name", "role", "permissions", "venue", "unit", "made", "", box=None, pad_edge=False)
    for key in held:
        state = f"revoked {_time(key.revoked_ms)}" if key.revoked_ms else f"ends {_time(key.expires_ms)}" if key.expires_ms else ""
        cells = (key.id, key.name, key.role, " ".join(key.permissions or ("all",)), key.venue or "", key.unit or "", _time(key.made_ms), state)
        table.add_row(*map(escape, cells))
    _out.print(table)


@keys_app.command("rotate")
def rotate_key(
    id: KeyId,
    tenant: Tenant,
    overlap: Annotated[str, typer.Option(help="How long the former secret counts beside the new one; 0s: not at all.")] = OVERLAP,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Give a key a new secret, and print it, once. The former one counts for the overlap."""

    async def rotate(desk: _Desk) -> str:
        from gateway.auth import digest_of

        now_ms = _now_ms()
        _, secret = _new_secret(id)
        await desk.store.rotate_key(tenant, id, digest_of(secret), now_ms=now_ms, others_until_ms=now_ms + age_ms(overlap))
        await desk.note(tenant, "key.rotate", id, overlap=overlap)
        return secret

    secret = _at_desk(config, data_dir, rotate)
    _err.print(f"key {id}; this is its new secret, which is not shown again:", highlight=False)
    print(secret)


@keys_app.command("revoke")
def revoke_key(id: KeyId, tenant: Tenant, data_dir: DataDir = None, config: Config = None) -> None:
    """End a key, at once: connections that were opened with it are closed."""

    async def end(desk: _Desk) -> bool:
        return await desk.revoke(tenant, "key", id)

    if not _at_desk(config, data_dir, end):
        raise NotFound(f"key {id!r} of {tenant!r}: there is none that counts; `esplanade keys list` names them")
    _err.print(f"revoked: key {escape(id)}", highlight=False)


@keys_app.command("rotate-signing")
def rotate_signing(
    now: Annotated[
        bool, typer.Option("--now", help="A key is known to strangers: the new one signs at once, and every token there is ends.")
    ] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Make the next key that our own tokens are signed with. (The service does so by itself, every 30 days.)"""

    async def rotate(desk: _Desk) -> str:
        from esplanade.core.clock import RealClock
        from gateway.signing_keys import SigningKeys

        keys = SigningKeys(desk.store, desk.vault, RealClock())
        await keys.load()
        kid = await keys.rotate(now=now)
        await desk.note("-", "signing_key.rotate", kid, at_once=now)
        return kid

    _err.print(f"signing key {_at_desk(config, data_dir, rotate)}{'' if now else ', in force in 10 minutes'}", highlight=False)


def _new_secret(id: str | None = None) -> tuple[str, str]:
    """(id, secret) of a key: 256 random bits, named so that a scanner of sources finds one."""
    import secrets

    from gateway.credentials import KEY_PREFIX

    id = id or secrets.token_hex(6)
    return id, f"{KEY_PREFIX}{id}_{secrets.token_urlsafe(32)}"


# --- operators ----------------------------------------------------------------------------------------------------------


@operators_app.command("add")
def add_operator(
    name: Name,
    tenant: Tenant,
    role: Annotated[str, typer.Option(help="operator, engineer or feed.")] = "operator",
    password_file: Annotated[Path | None, typer.Option(help="File whose first line is the password; by default it is asked for.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Add somebody who signs in with name and password."""
    from esplanade.core.ids import check_name

    check_name(name, "operator")
    _check_role(role)
    password = _password(password_file)

    async def add(desk: _Desk) -> None:
        made = await _operators(desk).add(tenant, name, role, password)
        await desk.note(tenant, "operator.add", name, role=role, subject=made.subject)

    _at_desk(config, data_dir, add)
    _err.print(f"added: {role} {escape(name)} of {escape(tenant)}; give them a second factor: esplanade operators second-factor", highlight=False)


@operators_app.command("list")
def list_operators(tenant: Tenant, data_dir: DataDir = None, config: Config = None) -> None:
    """Name a tenant's operators."""
    table = Table("name", "role", "subject", "second factor", "", box=None, pad_edge=False)
    for held in _at_desk(config, data_dir, lambda desk: desk.store.operators(tenant)):
        state = "disabled" if held.disabled_ms else "locked" if held.locked_until_ms > _now_ms() else ""
        table.add_row(*map(escape, (held.name, held.role, str(held.subject), "yes" if held.totp else "no", state)))
    _out.print(table)


@operators_app.command("second-factor")
def second_factor(name: Name, tenant: Tenant, data_dir: DataDir = None, config: Config = None) -> None:
    """Make a secret for an authenticator, print its address, once; a former one counts no more, and sign-ins that there are end."""

    async def make(desk: _Desk) -> str:
        operators = _operators(desk)
        address: str = await operators.set_second_factor(tenant, name)
        await desk.note(tenant, "operator.second_factor", name)
        await desk.revoke(tenant, "subject", str((await operators.get(tenant, name)).subject))
        return address

    address = _at_desk(config, data_dir, make)
    _err.print("for an authenticator, as a QR code or typed; it is not shown again:", highlight=False)
    print(address)


@operators_app.command("change")
def change_operator(
    name: Name,
    tenant: Tenant,
    role: Annotated[str | None, typer.Option(help="Another role.")] = None,
    disable: Annotated[bool | None, typer.Option("--disable/--enable", help="Whether they may sign in.")] = None,
    password: Annotated[bool, typer.Option("--password", help="Ask for another password.")] = False,
    password_file: Annotated[Path | None, typer.Option(help="File whose first line is another password.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Change role, password, or whether somebody may sign in. Sign-ins that there are end at once; a lock is opened."""
    if role is not None:
        _check_role(role)
    new = _password(password_file) if password or password_file is not None else None
    if role is None and disable is None and new is None:
        raise InvalidInput("nothing to change: give --role, --disable, --enable or --password")

    async def change(desk: _Desk) -> None:
        changed = await _operators(desk).change(tenant, name, role=role, password=new, disabled=disable)
        await desk.note(tenant, "operator.change", name, role=changed.role, disabled=changed.disabled_ms is not None, password=new is not None)
        await desk.revoke(tenant, "subject", str(changed.subject))

    _at_desk(config, data_dir, change)
    _err.print(f"changed: {escape(name)} of {escape(tenant)}", highlight=False)


def _operators(desk: _Desk) -> Any:
    from esplanade.core.clock import RealClock
    from gateway.sign_in import Operators

    return Operators(store=desk.store, catalogue=desk.catalogue, vault=desk.vault, clock=RealClock())


def _check_role(role: str) -> None:
    if role not in ("operator", "engineer", "feed"):
        raise InvalidInput(f"role {role!r}: must be operator, engineer or feed")


def _password(file: Path | None) -> str:
    if file is None:
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    try:
        return file.read_text().split("\n", 1)[0]
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(f"--password-file {file}: cannot be read ({type(error).__name__}); name a text file") from error


# --- sign-ins -----------------------------------------------------------------------------------------------------------


def revoke(
    tenant: Tenant,
    subject: Annotated[int | None, typer.Option(help="End all sign-ins and tokens of this person.")] = None,
    sign_in: Annotated[str | None, typer.Option(help="End this sign-in (`sid` of its tokens, `target` in the audit trail).")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """End sign-ins at once, on every gateway: their connections are closed, their tokens refused."""
    if (subject is None) == (sign_in is None):
        raise InvalidInput("give either --subject or --sign-in")

    async def end(desk: _Desk) -> bool:
        return await (desk.revoke(tenant, "subject", str(subject)) if sign_in is None else desk.revoke(tenant, "family", sign_in))

    if not _at_desk(config, data_dir, end):
        raise NotFound(f"sign-in {sign_in!r} of {tenant!r}: there is none that counts")
    _err.print(f"revoked: {'subject ' + str(subject) if sign_in is None else 'sign-in ' + escape(sign_in)}", highlight=False)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="minutes").replace("+00:00", "Z")
