"""Sealing of what is personal: a key a subject, so that destroying the key blanks everything sealed with it, wherever a copy lies.

Owns the cipher, the form of what is sealed, and how a key is kept. It does not know which data is personal (`actors.events` marks it).

AES-256-GCM throughout. A subject's key seals field after field, each with a nonce of 96 random bits: fewer than 2**32 fields a key, by far, keep the chance of a repeated nonce
below 2**-32 (NIST SP 800-38D, 8.3). What is sealed is bound to tenant, subject and field by the associated data, and padded to whole PAD_BYTES, so that its length says little. A
subject's key is itself sealed ("wrapped") by the master key, bound to tenant and subject, likewise with a random nonce. Random bytes come from the caller's source.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from esplanade.core.errors import Fault, InvalidInput

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
PAD_BYTES: Final = 64

SEALED_TEXT: Final = "~sealed.1~"
SEALED_BYTES: Final = b"~sealed.1~"
"""What a sealed field begins with. A field without it was stored before there was sealing, and is read as it is."""

ERASED_TEXT: Final = "~erased~"
ERASED_BYTES: Final = b"~erased~"
"""How a field reads once its subject is erased, and what is stored for an erased subject from then on."""

FRESH_S: Final = 30.0
"""A key at hand for longer than this is asked for again: an erasure is in force everywhere after so long."""

MAX_KEYS: Final = 100_000
"""Keys at hand in one process; the one used longest ago goes first."""

Random = Callable[[int], bytes]
"""n random bytes: os.urandom, or a test's own."""


class SubjectKeys(Protocol):
    """Where wrapped keys are kept. Implementations: `postgres_keys`, `memory`."""

    async def key(self, tenant: str, subject: str, make: bytes | None = None) -> bytes | None:
        """The wrapped key; keeps `make` if there is none yet. None where the subject is erased, or has none and none is given."""
        ...

    async def erase(self, tenant: str, subject: str) -> bool:
        """Destroy the key for good; whether there was one. From now on the subject is erased, whether it had a key or not."""
        ...

    async def erased(self, tenant: str, subject: str) -> bool: ...

    async def close(self) -> None: ...


class SubjectSeal:
    """Seals and opens what is personal about one subject. `erased`: its key is gone; it seals nothing and opens nothing."""

    __slots__ = ("_gcm", "_place", "_random")

    def __init__(self, tenant: str, subject: str, key: bytes | None, random: Random) -> None:
        self._place = f"{tenant}/{subject}/"
        self._gcm = AESGCM(key) if key is not None else None
        self._random = random

    @property
    def erased(self) -> bool:
        return self._gcm is None

    def seal(self, field: str, data: bytes) -> bytes:
        """The sealed form; of an erased subject nothing is kept."""
        if self._gcm is None:
            return ERASED_BYTES
        return SEALED_BYTES + self._sealed(self._gcm, field, data)

    def open(self, field: str, data: bytes) -> bytes:
        """What was sealed, or ERASED_BYTES where the key is gone; what was never sealed is returned as it is."""
        return self._opened(field, data[len(SEALED_BYTES) :]) if data.startswith(SEALED_BYTES) else data

    def seal_text(self, field: str, text: str) -> str:
        if self._gcm is None:
            return ERASED_TEXT
        return SEALED_TEXT + base64.b64encode(self._sealed(self._gcm, field, text.encode())).decode()

    def open_text(self, field: str, text: str) -> str:
        if not text.startswith(SEALED_TEXT):
            return text
        try:
            return self._opened(field, base64.b64decode(text[len(SEALED_TEXT) :], validate=True)).decode()
        except ValueError:
            return ERASED_TEXT  # no form of ours

    def _sealed(self, gcm: AESGCM, field: str, data: bytes) -> bytes:
        nonce = self._random(NONCE_BYTES)
        padded = data + b"\x80" + bytes(-(len(data) + 1) % PAD_BYTES)
        return nonce + gcm.encrypt(nonce, padded, (self._place + field).encode())

    def _opened(self, field: str, sealed: bytes) -> bytes:
        if self._gcm is None or len(sealed) <= NONCE_BYTES:
            return ERASED_BYTES
        try:
            padded = self._gcm.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], (self._place + field).encode())
        except InvalidTag:
            return ERASED_BYTES  # by a key that is gone: this subject's former one
        return padded[: padded.rindex(b"\x80")]


class SecretBox:
    """Seals secrets of the deployment itself, such as those that webhooks are signed with, under the master key; each bound to the `place` where it is kept."""

    def __init__(self, master: bytes, random: Random) -> None:
        if len(master) != KEY_BYTES:
            raise InvalidInput(f"master key of {len(master)} bytes: must have {KEY_BYTES} (64 hexadecimal digits in ESPLANADE_MASTER_KEY)")
        self._gcm = AESGCM(master)
        self._random = random

    def seal(self, place: str, secret: bytes) -> bytes:
        nonce = self._random(NONCE_BYTES)
        return nonce + self._gcm.encrypt(nonce, secret, f"secret/{place}".encode())

    def open(self, place: str, sealed: bytes) -> bytes:
        """Raises Fault for what was sealed elsewhere, or by another master key."""
        try:
            return self._gcm.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], f"secret/{place}".encode())
        except (InvalidTag, ValueError) as error:
            raise Fault(
                f"the secret of {place} was sealed by another master key; set ESPLANADE_MASTER_KEY to the one that was used, or rotate it"
            ) from error


class Keyring:
    """The seals of subjects, as far as this process has needed them. `master`: 32 bytes, the same in every process of a deployment."""

    def __init__(self, keys: SubjectKeys, master: bytes, random: Random) -> None:
        if len(master) != KEY_BYTES:
            raise InvalidInput(f"master key of {len(master)} bytes: must have {KEY_BYTES} (64 hexadecimal digits in ESPLANADE_MASTER_KEY)")
        self._keys = keys
        self._master = AESGCM(master)
        self._random = random
        self._held: OrderedDict[tuple[str, str], tuple[SubjectSeal, float]] = OrderedDict()

    def at_hand(self, tenant: str, subject: str, now_s: float) -> SubjectSeal | None:
        """The seal, if it was fetched within FRESH_S; else `fetch` it."""
        held = self._held.get((tenant, subject))
        return held[0] if held is not None and now_s - held[1] < FRESH_S else None

    async def fetch(self, tenant: str, subject: str, now_s: float) -> SubjectSeal:
        """The subject's seal, with a key made for it where it has none. Raises Unavailable, Fault where the key was wrapped by another master key."""
        aad = f"{tenant}/{subject}".encode()
        nonce = self._random(NONCE_BYTES)
        wrapped = await self._keys.key(tenant, subject, nonce + self._master.encrypt(nonce, self._random(KEY_BYTES), aad))
        seal = self._unwrapped(tenant, subject, wrapped)
        self._held.pop((tenant, subject), None)
        while len(self._held) >= MAX_KEYS:
            self._held.popitem(last=False)
        self._held[(tenant, subject)] = seal, now_s
        return seal

    async def reader(self, tenant: str, subject: str) -> SubjectSeal:
        """The seal to read with: as the database has the key now; makes none."""
        return self._unwrapped(tenant, subject, await self._keys.key(tenant, subject))

    def _unwrapped(self, tenant: str, subject: str, wrapped: bytes | None) -> SubjectSeal:
        if wrapped is None:
            return SubjectSeal(tenant, subject, None, self._random)
        try:
            key = self._master.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], f"{tenant}/{subject}".encode())
        except (InvalidTag, ValueError) as error:
            raise Fault(
                f"the key of subject {subject} of {tenant} was wrapped by another master key; set ESPLANADE_MASTER_KEY to the one that was used"
            ) from error
        return SubjectSeal(tenant, subject, key, self._random)
