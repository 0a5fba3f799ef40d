"""Sign-in: people by a code sent over SMS or e-mail, operators by password and a second factor.

Owns codes, passwords and their bounds: attempts, times, rates. Says the same to everybody, in about the same time, whether an account exists or not. Addresses are kept as keyed
digests alone, codes too; passwords as argon2id (RFC 9106), second factors (TOTP, RFC 6238) sealed.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from typing import Final

import msgspec
import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from esplanade.core.clock import SystemClock
from esplanade.core.errors import InvalidInput, LimitExceeded, NotFound, Unauthenticated
from esplanade.storage.catalogue import Catalogue
from esplanade.storage.identity import IdentityStore, OneTime, Operator
from esplanade.storage.quota import Quota
from esplanade.storage.sealing import Vault
from gateway.audit_trail import AuditTrail
from gateway.auth import base64url
from gateway.code_delivery import Channel, CodeCourier, CodeMessage

CODE_DIGITS: Final = 6
CODE_S: Final = 600.0
CODE_ATTEMPTS: Final = 5
"""Of a million codes: a guesser has 5 in a million with each code, and CODES_PER_ADDRESS of these in CODES_WINDOW_S."""
CODES_PER_ADDRESS: Final = 3
CODES_WINDOW_S: Final = 900.0
HOUR_S: Final = 3_600.0

PASSWORD_FAILURES: Final = 5
"""In a row; then the operator is locked for LOCK_S, with the right password too."""
LOCK_S: Final = 900.0
MIN_PASSWORD_CHARS: Final = 12
MAX_PASSWORD_CHARS: Final = 256
HASHING: Final = 2
"""Passwords hashed at once (64 MiB and some 50 ms of a core each)."""
MAX_HASHING: Final = 32
TOTP_STEP_S: Final = 30
TOTP_DRIFT: Final = 1
"""Steps that an authenticator's clock may be off."""

_SMS: Final = re.compile(r"\+[1-9][0-9]{7,14}")
_LETTER: Final = r"[^\s@\x00-\x1f\x7f\"(),:;<>\[\\\]]"
_EMAIL: Final = re.compile(rf"{_LETTER}{{1,64}}@{_LETTER}{{1,253}}\.(?:(?!\.){_LETTER}){{2,63}}")
"""Without the quotes, comments and lists of RFC 5322: with them, one mailbox would have many spellings, each with CODES_PER_ADDRESS of its own."""
_WRONG: Final = "name, password or second factor is wrong, or too many tries were; try again later"


class _Sent(msgspec.Struct):
    """What is kept of a code: digests."""

    code: bytes
    account: bytes
    channel: Channel


class CodeDesk:
    """Codes over SMS and e-mail. Whoever reads what was sent to an address is the person of that address, in that tenant.

    `sms_prefixes`: how numbers must begin to be sent any; () leaves it open. `sms_per_hour`: how many a tenant sends at most. SMS cost money, and strangers ask for them.
    """

    def __init__(
        self,
        *,
        store: IdentityStore,
        catalogue: Catalogue,
        courier: CodeCourier,
        quota: Quota,
        vault: Vault,
        clock: SystemClock,
        audit: AuditTrail | None,
        sms_prefixes: tuple[str, ...] = (),
        sms_per_hour: int | None = None,
    ) -> None:
        self._prefixes = sms_prefixes
        self._per_hour = sms_per_hour
        self._store = store
        self._catalogue = catalogue
        self._courier = courier
        self._quota = quota
        self._vault = vault
        self._clock = clock
        self._audit = audit

    async def request(self, tenant: str, channel: Channel, address: str, *, origin: str) -> str:
        """Send a code, where there is such a tenant; returns what to present with it. Raises InvalidInput for what is no address, LimitExceeded, and as `CodeCourier.check`."""
        if channel == "sms":
            address = re.sub(r"[ ()./-]", "", address)
        if not (_SMS if channel == "sms" else _EMAIL).fullmatch(address) or len(address) > 320:
            raise InvalidInput("address: must be a number as +491701234567 for sms, or an e-mail address; mend it")
        if channel == "sms" and self._prefixes and not address.startswith(self._prefixes):
            raise InvalidInput(f"address: codes go to numbers that begin with {', '.join(self._prefixes)}; give one of these, or sign in another way")
        address = address if channel == "sms" else address.lower()
        account = self._vault.digest("account", channel, address)
        self._courier.check(channel)
        if not await self._quota.take(f"code:{tenant}:{account.hex()}", 1, limit=CODES_PER_ADDRESS, window_s=CODES_WINDOW_S):
            raise LimitExceeded(
                f"{CODES_PER_ADDRESS} codes were asked for this address within {CODES_WINDOW_S / 60:.0f} minutes; use one of them, or wait"
            )
        if channel == "sms" and self._per_hour is not None and not await self._quota.take(f"sms:{tenant}", 1, limit=self._per_hour, window_s=HOUR_S):
            raise LimitExceeded(f"more than {self._per_hour} codes over sms were asked for within an hour: ask again later, or sign in another way")
        request = base64url(self._vault.random(16))
        code = f"{int.from_bytes(self._vault.random(8), 'big') % 10**CODE_DIGITS:0{CODE_DIGITS}d}"
        if tenant in await self._catalogue.tenants():
            kept, now_ms = _Sent(self._vault.digest("code", request, code), account, channel), self._clock.unix_ms()
            await self._store.keep_once("code", request, OneTime(tenant, msgspec.msgpack.encode(kept)), now_ms + round(CODE_S * 1000))
            text = f"{code} is your code. It is good for {CODE_S / 60:.0f} minutes. Tell it to nobody."
            message = CodeMessage(base64url(self._vault.random(16)), channel, address, text, now_ms)
            self._courier.send(message, tenant=tenant, origin=origin)
        return request

    async def verify(self, request: str, code: str, *, origin: str) -> tuple[str, int]:
        """(tenant, subject) of the person whose code it is; each code counts once. Raises Unauthenticated, which does not say why."""
        wrong = Unauthenticated("this code is wrong, was used, or has run out; ask for another")
        once = await self._store.attempt("code", request[:64], most=CODE_ATTEMPTS, now_ms=self._clock.unix_ms())
        if once is None:
            raise wrong
        sent = msgspec.msgpack.decode(once.body, type=_Sent)
        if not hmac.compare_digest(sent.code, self._vault.digest("code", request[:64], code[:64])):
            if self._audit is not None:
                self._audit.refused(
                    tenant=once.tenant, who="unknown", what="sign_in", target=sent.channel, origin=origin, outcome=wrong.code, why="wrong code"
                )  # fmt: skip
            raise wrong
        now_ms = self._clock.unix_ms()
        if await self._store.spend("code", request[:64], now_ms) is None:
            raise wrong  # somebody else just used it
        subject = await self._store.account(once.tenant, sent.channel, sent.account)
        if subject is None:
            subject = await self._store.link(once.tenant, sent.channel, sent.account, await self._catalogue.next_subject(once.tenant), now_ms)
        return once.tenant, subject


class OperatorDesk:
    """Operators, by name and password, and the second factor where they have one."""

    def __init__(
        self, *, store: IdentityStore, vault: Vault, clock: SystemClock, audit: AuditTrail | None, hasher: PasswordHasher | None = None
    ) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._audit = audit
        self._hasher = hasher or PasswordHasher()
        self._nobody = self._hasher.hash(base64url(vault.random(16)))
        self._turns = asyncio.Semaphore(HASHING)
        self._waiting = 0

    async def check(self, tenant: str, name: str, password: str, code: str, *, origin: str) -> tuple[Operator, bool]:
        """The operator, and whether a second factor was shown. Who has one must show it. Raises Unauthenticated, which does not say what was wrong."""
        held = await self._store.operator(tenant[:128], name[:128])
        now_ms = self._clock.unix_ms()
        right = await self._matches(self._nobody if held is None else held.password, password)  # as long for nobody as for somebody
        if held is None or held.disabled_ms is not None or held.locked_until_ms > now_ms or not right:
            why = (
                "no such operator"
                if held is None
                else "disabled"
                if held.disabled_ms is not None
                else "locked"
                if held.locked_until_ms > now_ms
                else "password"
            )
            await self._refuse(tenant, name, held, why, origin, counts=why == "password")
        assert held is not None
        if held.totp is not None and not await self.second_factor(held, code):
            await self._refuse(tenant, name, held, "second factor", origin, counts=True)
        await self._store.signed_in(tenant, name)
        return held, held.totp is not None

    async def step_up(self, tenant: str, subject: int, code: str, *, origin: str) -> None:
        """The operator with this subject shows the second factor. Raises Unauthenticated."""
        held = next((operator for operator in await self._store.operators(tenant) if operator.subject == subject), None)
        if held is None or held.disabled_ms is not None or held.locked_until_ms > self._clock.unix_ms() or not await self.second_factor(held, code):
            await self._refuse(tenant, f"subject {subject}" if held is None else held.name, held, "second factor", origin, counts=held is not None)

    async def second_factor(self, operator: Operator, code: str) -> bool:
        """Whether the code is that of now, and was not used before."""
        if operator.totp is None or not code.isascii() or not code.isdigit() or len(code) != CODE_DIGITS:
            return False
        totp = pyotp.TOTP(self._vault.open(f"totp/{operator.tenant}/{operator.name}", operator.totp).decode())
        step = self._clock.unix_ms() // 1000 // TOTP_STEP_S
        for near in range(step - TOTP_DRIFT, step + TOTP_DRIFT + 1):
            if hmac.compare_digest(totp.generate_otp(near), code):
                return await self._store.take_totp_step(operator.tenant, operator.name, near)
        return False

    async def _refuse(self, tenant: str, name: str, held: Operator | None, why: str, origin: str, *, counts: bool) -> None:
        if held is not None and counts:
            await self._store.sign_in_failed(
                tenant, held.name, most=PASSWORD_FAILURES, lock_until_ms=self._clock.unix_ms() + round(LOCK_S * 1000)
            )  # fmt: skip
        if self._audit is not None:
            self._audit.refused(
                tenant=tenant, who=f"operator {name}", what="sign_in", target=name, origin=origin, outcome=Unauthenticated.code, why=why
            )
        raise Unauthenticated(_WRONG)

    async def _matches(self, kept: str, password: str) -> bool:
        if self._waiting >= MAX_HASHING:
            raise LimitExceeded(f"{MAX_HASHING} passwords are being checked; try again in a moment")
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(self._verify, kept, password[:MAX_PASSWORD_CHARS])
        finally:
            self._waiting -= 1

    def _verify(self, kept: str, password: str) -> bool:
        try:
            return self._hasher.verify(kept, password)
        except (VerificationError, InvalidHashError):
            return False


class Operators:
    """Those who administer operators: the command line, on the machine that has the database."""

    def __init__(self, *, store: IdentityStore, catalogue: Catalogue, vault: Vault, clock: SystemClock) -> None:
        self._store = store
        self._catalogue = catalogue
        self._vault = vault
        self._clock = clock

    async def add(self, tenant: str, name: str, role: str, password: str) -> Operator:
        """Raises InvalidInput for a password that is too short or too long, Conflict, NotFound."""
        hashed = await asyncio.to_thread(hash_password, password)
        made = Operator(tenant, name, await self._catalogue.next_subject(tenant), role, hashed, self._clock.unix_ms())
        await self._store.add_operator(made)
        return made

    async def get(self, tenant: str, name: str) -> Operator:
        held = await self._store.operator(tenant, name)
        if held is None:
            raise NotFound(f"operator {name!r} of {tenant!r}: there is none; `esplanade operators list` names them")
        return held

    async def set_second_factor(self, tenant: str, name: str) -> str:
        """A new secret for an authenticator, as an otpauth address to show once; the former one counts no more."""
        held, secret = await self.get(tenant, name), pyotp.random_base32()
        sealed = self._vault.seal(f"totp/{tenant}/{name}", secret.encode())
        await self._store.change_operator(msgspec.structs.replace(held, totp=sealed))
        return pyotp.TOTP(secret).provisioning_uri(name=f"{name}@{tenant}", issuer_name="Esplanade")

    async def change(self, tenant: str, name: str, *, role: str | None = None, password: str | None = None, disabled: bool | None = None) -> Operator:
        """What is given; what was locked is open again. The caller revokes the sign-ins that there are."""
        held = await self.get(tenant, name)
        changed = msgspec.structs.replace(
            held,
            role=role or held.role,
            password=held.password if password is None else await asyncio.to_thread(hash_password, password),
            disabled_ms=held.disabled_ms if disabled is None else self._clock.unix_ms() if disabled else None,
        )
        await self._store.change_operator(changed)
        return changed


def hash_password(password: str) -> str:
    """Raises InvalidInput."""
    if not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS:
        raise InvalidInput(f"password of {len(password)} characters: must have {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS}; take a longer sentence")
    return PasswordHasher().hash(password)
