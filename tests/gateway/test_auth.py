"""Tokens: what verifies, what does not, and who may do what."""

from __future__ import annotations

import base64
import json
from typing import Any, get_args

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esplanade.core.errors import InvalidInput, Unauthenticated
from gateway import frames as f
from gateway.auth import PERMITTED, READABLE, ROLES, Signer, Topic, TopicName, Verifier, permits

NOW = 1_700_000_000.0
SIGNER = Signer(b"k" * 32)
VERIFIER = Verifier(SIGNER.public_key)
GOOD: dict[str, Any] = {"aud": "esplanade", "sub": "7", "tenant": "demo", "role": "shopper", "iat": int(NOW), "exp": int(NOW + 60)}


def signed(claims: dict[str, Any], *, key: Any = None, algorithm: str = "EdDSA") -> str:
    return jwt.encode(claims, key or Ed25519PrivateKey.from_private_bytes(b"k" * 32), algorithm=algorithm)


def test_a_token_says_who_and_what() -> None:
    identity = VERIFIER.verify(SIGNER.issue(7, "demo", "feed", "crowd", 60, NOW), NOW)
    assert (identity.subject, identity.tenant, identity.role, identity.source) == (7, "demo", "feed", "crowd")


def test_expiry_is_checked_with_the_clock_that_is_passed() -> None:
    token = SIGNER.issue(7, "demo", "shopper", None, 60, NOW)
    VERIFIER.verify(token, NOW + 59)
    with pytest.raises(Unauthenticated, match="expired"):
        VERIFIER.verify(token, NOW + 63)


@pytest.mark.parametrize(
    "change",
    [
        {"aud": "another"},
        {"sub": "-1"},
        {"sub": str(2**32)},
        {"sub": "7.0"},
        {"sub": "٧"},
        {"role": "root"},
        {"tenant": "a/b"},
        {"tenant": 5},
        {"source": ["x"]},
        {"source": "../x"},
        {"exp": "soon"},
        {"exp": True},
    ],
)
def test_a_token_with_one_wrong_claim_is_refused(change: dict[str, Any]) -> None:
    VERIFIER.verify(signed(GOOD), NOW)
    with pytest.raises(Unauthenticated):
        VERIFIER.verify(signed(GOOD | change), NOW)


@pytest.mark.parametrize("missing", sorted(set(GOOD) - {"iat"}))
def test_a_token_without_a_claim_is_refused(missing: str) -> None:
    with pytest.raises(Unauthenticated):
        VERIFIER.verify(signed({k: v for k, v in GOOD.items() if k != missing}), NOW)


def test_algorithm_none_is_refused() -> None:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    for algorithm in ("none", "None", "NONE"):
        with pytest.raises(Unauthenticated):
            VERIFIER.verify(f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(GOOD)}.", NOW)


def test_a_symmetric_algorithm_is_refused() -> None:
    with pytest.raises(Unauthenticated):
        VERIFIER.verify(signed(GOOD, key="s" * 64, algorithm="HS256"), NOW)


def test_another_key_or_a_changed_payload_is_refused() -> None:
    with pytest.raises(Unauthenticated):
        VERIFIER.verify(signed(GOOD, key=Ed25519PrivateKey.from_private_bytes(b"z" * 32)), NOW)
    head, body, mark = signed(GOOD).split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["role"] = "operator"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    with pytest.raises(Unauthenticated):
        VERIFIER.verify(f"{head}.{forged}.{mark}", NOW)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é.é.é", "." * 5000])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated):
        VERIFIER.verify(token, NOW)


def test_a_token_for_nobody_is_not_issued() -> None:
    with pytest.raises(InvalidInput):
        SIGNER.issue(2**32, "demo", "shopper", None, 60, NOW)
    with pytest.raises(InvalidInput):
        SIGNER.issue(1, "demo", "shopper", None, 0, NOW)
    with pytest.raises(InvalidInput):
        Signer(b"short")


# --- permissions ------------------------------------------------------------------------------------------------------

EVERY_FRAME = get_args(f.ClientFrame)
MATRIX = {  # frame -> roles that may; written out, so that a change of the table is a change of this one
    "hello": "guest shopper feed operator engineer",
    "ping": "guest shopper feed operator engineer",
    "walk_in": "guest shopper",
    "move": "guest shopper",
    "leave": "guest shopper",
    "ack": "guest shopper feed operator engineer",
    "pay": "guest shopper",
    "balance": "guest shopper",
    "transfer": "guest shopper",
    "statement": "guest shopper operator",
    "refund": "operator",
    "hold": "operator",
    "post": "operator",
    "void": "operator",
    "get_till": "operator",
    "subscribe": "guest shopper feed operator engineer",
    "unsubscribe": "guest shopper feed operator engineer",
    "get_offers": "guest shopper feed operator engineer",
    "find_stores": "guest shopper feed operator engineer",
    "search": "guest shopper feed operator engineer",
    "route": "guest shopper feed operator engineer",
    "isochrone": "guest shopper feed operator engineer",
    "get_access": "guest shopper feed operator engineer",
    "set_access": "operator",
    "draw_zone": "operator",
    "erase_zone": "operator",
    "get_zones": "operator engineer",
    "measure": "operator engineer",
    "get_heat": "operator engineer",
    "count_gates": "feed operator",
    "compare_parking": "operator engineer",
    "recount": "operator",
    "edit_venue": "operator",
    "undo_edit": "operator",
    "redo_edit": "operator",
    "get_edits": "operator",
    "set_traits": "feed operator",
    "explain": "guest shopper operator",
    "get_zone": "operator engineer",
    "get_clock": "guest shopper feed operator engineer",
    "create_offer": "operator",
    "end_offer": "operator",
    "set_bays": "feed operator",
    "get_books": "operator engineer",
    "open_source": "feed",
    "close_source": "feed",
    "columns": "feed",
    "watermark": "feed",
    "top_ups": "feed operator",
    "payments": "feed",
}


@pytest.mark.parametrize("frame", EVERY_FRAME, ids=lambda t: t.__struct_config__.tag)
@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_send_exactly_its_frames(role: Any, frame: type) -> None:
    tag = frame.__struct_config__.tag  # type: ignore[attr-defined]
    assert permits(role, frame) == (role in MATRIX[tag].split())


def test_the_table_names_no_frame_that_is_not() -> None:
    assert set().union(*PERMITTED.values()) == set(EVERY_FRAME)
    assert set().union(*READABLE.values()) == set(get_args(Topic))


@pytest.mark.parametrize(
    ("topic", "roles"),
    [
        ("venue/v/dots/0", "operator"),
        ("venue/v/density/0", "guest shopper feed operator engineer"),
        ("venue/v/stats", "guest shopper feed operator engineer"),
        ("venue/v/clock", "guest shopper feed operator engineer"),
        ("venue/v/parking", "guest shopper feed operator engineer"),
        ("venue/v/offers", "guest shopper feed operator engineer"),
        ("venue/v/zone/queue:1", "operator engineer"),
        ("payments", "operator engineer"),
    ],
)
def test_each_role_may_read_exactly_its_topics(topic: str, roles: str) -> None:
    name = TopicName.parse(topic)
    assert [role for role in ROLES if permits(role, f.Subscribe, name)] == [role for role in ROLES if role in roles.split()]


@pytest.mark.parametrize(
    "topic",
    ["", "venue", "venue/v", "venue/v/pushes", "venue/v/dots", "venue/v/dots/255", "venue/v/dots/01", "venue/v/dots/-1", "venue/v/dots/٣",
     "venue//stats", "venue/a/b/stats", "venue/v/stats/0", "payments/x", "esp:other:payments", "venue/../stats"],
)  # fmt: skip
def test_what_is_no_topic_is_refused(topic: str) -> None:
    with pytest.raises(InvalidInput):
        TopicName.parse(topic)
