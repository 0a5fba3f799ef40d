"""What every store of identities promises."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from esplanade.core.errors import Conflict, NotFound
from esplanade.storage.identity import ApiKey, Family, IdentityStore, OneTime, Operator, Revocation, SigningKey

NOW = 1_700_000_000_000
DAY = 86_400_000
Both = tuple[IdentityStore, IdentityStore]


def signing_key(kid: str, at: int = NOW) -> SigningKey:
    return SigningKey(kid, b"p" * 32, b"s" * 60, at, at)


def family(name: str = "f1", subject: int = 7) -> Family:
    return Family(name, "demo", subject, "shopper", None, "app", NOW, NOW + DAY)


def api_key(id: str = "k1", **more: object) -> ApiKey:
    made = ApiKey(id, "demo", "till", "operator", ("wallets.read",), "field", "stand-1", None, 9, NOW)
    return msgspec.structs.replace(made, **more)


async def test_the_first_signing_key_is_made_once(identities: Both) -> None:
    made = await asyncio.gather(*(store.add_signing_key(signing_key(f"k{i}"), others_until_ms=None) for i, store in enumerate(identities)))
    assert sorted(made) == [False, True]
    assert len(await identities[0].signing_keys()) == 1


async def test_a_rotation_retires_the_former_keys(identities: Both) -> None:
    store = identities[0]
    await store.add_signing_key(signing_key("a"), others_until_ms=None)
    await store.add_signing_key(signing_key("b", NOW + 10), others_until_ms=NOW + DAY)
    await store.add_signing_key(signing_key("c", NOW + 20), others_until_ms=NOW + 2 * DAY)
    held = await identities[1].signing_keys()
    assert [(key.kid, key.verifies_until_ms) for key in held] == [("a", NOW + DAY), ("b", NOW + 2 * DAY), ("c", None)]
    assert held[0].public == b"p" * 32
    assert held[0].sealed == b"s" * 60
    await store.drop_expired(NOW + DAY)
    assert [key.kid for key in await store.signing_keys()] == ["b", "c"]


async def test_somebody_stays_the_subject_that_they_became(identities: Both) -> None:
    one, two = identities
    assert await one.account("demo", "https://idp", b"d" * 32) is None
    answers = await asyncio.gather(one.link("demo", "https://idp", b"d" * 32, 5, NOW), two.link("demo", "https://idp", b"d" * 32, 6, NOW))
    assert answers[0] == answers[1]
    assert await two.account("demo", "https://idp", b"d" * 32) == answers[0]
    assert await two.account("other", "https://idp", b"d" * 32) is None
    assert await one.unlink("demo", answers[0]) == 1
    assert await two.account("demo", "https://idp", b"d" * 32) is None
    with pytest.raises(NotFound, match="nobody"):
        await one.link("nobody", "https://idp", b"d" * 32, 5, NOW)


async def test_a_refresh_token_is_spent_once_and_its_reuse_revokes_the_family(identities: Both) -> None:
    one, two = identities
    await one.begin(family(), b"1")
    assert await two.turn(b"unknown", b"x", NOW, NOW + DAY) is None
    first = await two.turn(b"1", b"2", NOW, NOW + DAY)
    assert first is not None
    assert (first.outcome, first.family) == ("turned", family())
    reused = await one.turn(b"1", b"3", NOW + 1, NOW + DAY)
    assert reused is not None
    assert reused.outcome == "reused"
    for token in (b"2", b"1"):
        after = await two.turn(token, b"4", NOW + 2, NOW + DAY)
        assert after is not None
        assert after.outcome == "ended"
    assert await two.revocations(NOW) == [Revocation("demo", "family", "f1", NOW + 1, NOW + DAY)]


async def test_of_two_who_present_a_refresh_token_at_once_one_gets_the_next(identities: Both) -> None:
    await identities[0].begin(family(), b"1")
    turns = await asyncio.gather(*(store.turn(b"1", following, NOW, NOW + DAY) for store, following in zip(identities, (b"2", b"3"), strict=True)))
    assert sorted(turn.outcome for turn in turns if turn is not None) == ["reused", "turned"]


async def test_a_family_ends_with_its_time(identities: Both) -> None:
    await identities[0].begin(family(), b"1")
    turn = await identities[0].turn(b"1", b"2", NOW + DAY, NOW + 2 * DAY)
    assert turn is not None
    assert turn.outcome == "ended"
    assert await identities[0].drop_expired(NOW + DAY) == 1
    assert await identities[0].turn(b"1", b"2", NOW, NOW) is None


async def test_what_is_good_once_is_good_once(identities: Both) -> None:
    one, two = identities
    await one.keep_once("code", "a", OneTime("demo", b"body"), NOW + 100)
    assert await two.spend("other", "a", NOW) is None
    taken = await asyncio.gather(*(store.spend("code", "a", NOW) for store in (one, two, one, two)))
    assert [once for once in taken if once is not None] == [OneTime("demo", b"body")]
    await one.keep_once("code", "b", OneTime("demo", b""), NOW + 100)
    assert await one.spend("code", "b", NOW + 100) is None


async def test_attempts_are_bounded_however_many_try_at_once(identities: Both) -> None:
    await identities[0].keep_once("sms", "a", OneTime("demo", b"x"), NOW + 100)
    tried = await asyncio.gather(*(identities[i % 2].attempt("sms", "a", most=3, now_ms=NOW) for i in range(8)))
    assert sum(once is not None for once in tried) == 3
    await identities[0].keep_once("sms", "b", OneTime("demo", b"x"), NOW + 100)
    assert await identities[0].attempt("sms", "b", most=3, now_ms=NOW + 100) is None


async def test_an_operator_is_locked_after_failures_in_a_row(identities: Both) -> None:
    store = identities[0]
    await store.add_operator(Operator("demo", "ann", 3, "operator", "hash", NOW))
    with pytest.raises(Conflict):
        await store.add_operator(Operator("demo", "ann", 4, "operator", "hash", NOW))
    with pytest.raises(NotFound):
        await store.add_operator(Operator("nobody", "ann", 4, "operator", "hash", NOW))
    for _ in range(2):
        await store.sign_in_failed("demo", "ann", most=3, lock_until_ms=NOW + 60)
    await store.signed_in("demo", "ann")
    for _ in range(3):
        held = await store.operator("demo", "ann")
        assert held is not None
        assert held.locked_until_ms == 0
        await store.sign_in_failed("demo", "ann", most=3, lock_until_ms=NOW + 60)
    held = await identities[1].operator("demo", "ann")
    assert held is not None
    assert held.locked_until_ms == NOW + 60
    await store.change_operator(msgspec.structs.replace(held, role="engineer", totp=b"sealed", disabled_ms=NOW))
    assert await identities[1].operators("demo") == [Operator("demo", "ann", 3, "engineer", "hash", NOW, totp=b"sealed", disabled_ms=NOW)]
    assert await store.operator("other", "ann") is None


async def test_a_time_step_is_taken_once(identities: Both) -> None:
    await identities[0].add_operator(Operator("demo", "ann", 3, "operator", "hash", NOW))
    taken = await asyncio.gather(*(identities[i % 2].take_totp_step("demo", "ann", 100) for i in range(6)))
    assert sum(taken) == 1
    assert not await identities[0].take_totp_step("demo", "ann", 99)
    assert await identities[1].take_totp_step("demo", "ann", 101)
    assert not await identities[0].take_totp_step("demo", "bob", 101)


async def test_a_key_has_two_secrets_while_it_is_rotated_and_never_three(identities: Both) -> None:
    one, two = identities
    await one.add_key(api_key(), b"1")
    assert await two.key_of(b"1", NOW) == api_key()
    assert await two.key_of(b"2", NOW) is None
    await one.rotate_key("demo", "k1", b"2", now_ms=NOW + 10, others_until_ms=NOW + 100)
    assert [await two.key_of(digest, NOW + 20) is not None for digest in (b"1", b"2")] == [True, True]
    assert [await two.key_of(digest, NOW + 100) is not None for digest in (b"1", b"2")] == [False, True]
    await one.rotate_key("demo", "k1", b"3", now_ms=NOW + 30, others_until_ms=NOW + 130)
    assert [await two.key_of(digest, NOW + 40) is not None for digest in (b"1", b"2", b"3")] == [False, True, True]
    with pytest.raises(NotFound):
        await one.rotate_key("other", "k1", b"4", now_ms=NOW, others_until_ms=NOW)


async def test_keys_are_the_tenants_and_end_with_their_time(identities: Both) -> None:
    one, two = identities
    await one.add_key(api_key(permissions=None, expires_ms=NOW + 50), b"1")
    assert [key.id for key in await two.keys("demo")] == ["k1"]
    assert await two.keys("other") == []
    assert await two.key_of(b"1", NOW + 49) == api_key(permissions=None, expires_ms=NOW + 50)
    assert await two.key_of(b"1", NOW + 50) is None
    with pytest.raises(NotFound):
        await one.add_key(api_key("k2", tenant="nobody"), b"2")


async def test_a_revocation_holds_at_once_and_only_for_its_tenant(identities: Both) -> None:
    one, two = identities
    await one.add_key(api_key(), b"1")
    await one.begin(family(), b"f")
    assert not await one.revoke(Revocation("other", "key", "k1", NOW, NOW + DAY))
    assert not await one.revoke(Revocation("other", "family", "f1", NOW, NOW + DAY))
    assert await two.key_of(b"1", NOW) is not None
    assert await one.revoke(Revocation("demo", "key", "k1", NOW, NOW + DAY))
    assert not await one.revoke(Revocation("demo", "key", "k1", NOW, NOW + DAY)), "it is revoked already"
    assert await two.key_of(b"1", NOW) is None
    assert await one.revoke(Revocation("demo", "subject", "7", NOW, NOW + DAY))
    turn = await two.turn(b"f", b"g", NOW, NOW + DAY)
    assert turn is not None
    assert turn.outcome == "ended"
    assert {(held.kind, held.what) for held in await two.revocations(NOW)} == {("key", "k1"), ("subject", "7")}
    assert await two.revocations(NOW + DAY) == []
    await one.drop_expired(NOW + DAY)
    assert await two.revocations(NOW) == []


async def test_a_listener_hears_of_another_processs_revocation(identities: Both) -> None:
    one, two = identities
    changes = two.changes()
    async with asyncio.timeout(30):
        await anext(changes)
        await one.revoke(Revocation("demo", "subject", "7", NOW, NOW + DAY))
        await anext(changes)
    assert [held.what for held in await two.revocations(NOW)] == ["7"]
    with contextlib.suppress(StopAsyncIteration):
        await changes.aclose()  # type: ignore[attr-defined]
