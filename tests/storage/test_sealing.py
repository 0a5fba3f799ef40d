"""What was sealed opens with its own key, in its own place, and with nothing else."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esplanade.core.errors import Fault, InvalidInput
from esplanade.storage.memory import MemorySubjectKeys
from esplanade.storage.sealing import ERASED_BYTES, ERASED_TEXT, FRESH_S, PAD_BYTES, SEALED_BYTES, SEALED_TEXT, Keyring, SubjectSeal

SEAL = SubjectSeal("demo", "8", b"k" * 32, os.urandom)
GONE = SubjectSeal("demo", "8", None, os.urandom)
STRANGERS = [
    GONE,
    SubjectSeal("demo", "8", b"x" * 32, os.urandom),
    SubjectSeal("demo", "9", b"k" * 32, os.urandom),
    SubjectSeal("other", "8", b"k" * 32, os.urandom),
]


@given(st.binary(max_size=300), st.text(max_size=100))
def test_what_is_sealed_opens_and_shows_nothing(data: bytes, text: str) -> None:
    sealed, sealed_text = SEAL.seal("f", data), SEAL.seal_text("f", text)
    assert SEAL.open("f", sealed) == data
    assert SEAL.open_text("f", sealed_text) == text
    assert len(data) < 4 or data not in sealed[len(SEALED_BYTES) :]
    assert (len(sealed) - len(SEALED_BYTES) - 12 - 16) % PAD_BYTES == 0, "the length says little"
    assert SEAL.seal("f", data) != sealed, "a nonce of its own each time"


@pytest.mark.parametrize("stranger", STRANGERS, ids=["erased", "another key", "another subject", "another tenant"])
def test_nobody_else_opens_it(stranger: SubjectSeal) -> None:
    assert stranger.open("f", SEAL.seal("f", b"data")) == ERASED_BYTES
    assert stranger.open_text("f", SEAL.seal_text("f", "text")) == ERASED_TEXT


def test_it_does_not_open_in_the_place_of_another_field_or_when_altered() -> None:
    sealed = SEAL.seal("f", b"data")
    assert SEAL.open("g", sealed) == ERASED_BYTES
    assert SEAL.open("f", sealed[:-1] + bytes((sealed[-1] ^ 1,))) == ERASED_BYTES
    assert SEAL.open("f", SEALED_BYTES) == ERASED_BYTES
    assert SEAL.open_text("f", SEALED_TEXT + "no base64!") == ERASED_TEXT


def test_what_was_never_sealed_is_read_as_it_is() -> None:
    for seal in (SEAL, GONE):
        assert seal.open("f", b"plain") == b"plain"
        assert seal.open_text("f", "plain") == "plain"


def test_of_an_erased_subject_nothing_is_kept() -> None:
    assert GONE.seal("f", b"data") == ERASED_BYTES
    assert GONE.seal_text("f", "text") == ERASED_TEXT


async def test_a_keyring_gives_every_process_the_same_key_until_it_is_destroyed() -> None:
    keys = MemorySubjectKeys()
    one, two = (Keyring(keys, b"m" * 32, os.urandom) for _ in range(2))
    assert one.at_hand("demo", "8", 0.0) is None
    sealed = (await one.fetch("demo", "8", 0.0)).seal("f", b"data")
    assert (await two.reader("demo", "8")).open("f", sealed) == b"data"
    held = one.at_hand("demo", "8", FRESH_S - 0.1)
    assert held is not None
    await keys.erase("demo", "8")
    assert one.at_hand("demo", "8", FRESH_S) is None, "asked for again, so that an erasure takes effect"
    assert (await one.fetch("demo", "8", FRESH_S)).erased
    assert (await two.reader("demo", "8")).open("f", sealed) == ERASED_BYTES


async def test_reading_makes_no_key() -> None:
    keys = MemorySubjectKeys()
    assert (await Keyring(keys, b"m" * 32, os.urandom).reader("demo", "8")).erased
    assert await keys.key("demo", "8") is None
    assert not await keys.erased("demo", "8")


async def test_a_key_does_not_open_under_another_master_key_or_in_another_subjects_row() -> None:
    keys = MemorySubjectKeys()
    await Keyring(keys, b"m" * 32, os.urandom).fetch("demo", "8", 0.0)
    with pytest.raises(Fault, match="ESPLANADE_MASTER_KEY"):
        await Keyring(keys, b"n" * 32, os.urandom).reader("demo", "8")
    await keys.key("demo", "9", await keys.key("demo", "8"))
    with pytest.raises(Fault, match="another master key"):
        await Keyring(keys, b"m" * 32, os.urandom).reader("demo", "9")
    with pytest.raises(InvalidInput, match="32"):
        Keyring(keys, b"short", os.urandom)
