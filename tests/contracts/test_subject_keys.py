"""What every store of subjects' keys promises."""

from __future__ import annotations

import asyncio

from esplanade.storage.sealing import SubjectKeys


async def test_whoever_asks_first_makes_the_key_and_all_get_it(subject_keys: SubjectKeys) -> None:
    assert await subject_keys.key("demo", "8") is None
    answers = await asyncio.gather(*(subject_keys.key("demo", "8", b"%d" % n * 60) for n in range(5)))
    assert len(set(answers)) == 1
    assert await subject_keys.key("demo", "8") == answers[0]
    assert await subject_keys.key("demo", "9", b"nine") == b"nine"
    assert await subject_keys.key("other", "8", b"other") == b"other"


async def test_an_erased_subject_has_no_key_and_gets_none_again(subject_keys: SubjectKeys) -> None:
    await subject_keys.key("demo", "8", b"key")
    assert not await subject_keys.erased("demo", "8")
    assert await subject_keys.erase("demo", "8")
    assert not await subject_keys.erase("demo", "8")
    assert await subject_keys.erased("demo", "8")
    assert await subject_keys.key("demo", "8", b"another") is None


async def test_a_subject_that_never_had_a_key_can_be_erased_too(subject_keys: SubjectKeys) -> None:
    assert not await subject_keys.erase("demo", "8")
    assert await subject_keys.erased("demo", "8")
    assert await subject_keys.key("demo", "8", b"key") is None
    assert not await subject_keys.erased("demo", "9")
