"""Tokens: what verifies, what does not, and who may do what."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, get_args

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from esplanade.core.errors import InvalidInput, Unauthenticated
from gateway import auth
from gateway import frames as f
from gateway.auth import Signer, TopicName, Verifier
from gateway.permissions import GRANTED, NEEDS, RESOURCE_NEEDS, ROLES, TOPIC_NEEDS, Permission, Resource, Topic, frames_of, matrix, permits

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


def test_what_verified_once_is_known_until_it_expires_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier, other = Verifier(SIGNER.public_key), Verifier(Signer(b"x" * 32).public_key)
    token = SIGNER.issue(7, "demo", "shopper", None, 60, NOW)
    first = verifier.verify(token, NOW)
    checked: list[str] = []
    monkeypatch.setattr(jwt, "decode", lambda token, *_, **__: checked.append(token) or {})
    assert verifier.verify(token, NOW + 59) == first
    assert checked == []
    monkeypatch.undo()
    for changed, at in ((token, NOW + 63), (token[:-3] + "AAA", NOW), (token + " ", NOW)):
        with pytest.raises(Unauthenticated):
            verifier.verify(changed, at)
    with pytest.raises(Unauthenticated):
        other.verify(token, NOW)
    monkeypatch.setattr(auth, "MAX_KNOWN", 3)
    for subject in range(10):
        verifier.verify(SIGNER.issue(subject, "demo", "shopper", None, 60, NOW), NOW)
    assert len(verifier._known) == 3


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
    "observe": "guest shopper",
    "get_consent": "guest shopper",
    "give_consent": "guest shopper",
    "withdraw_consent": "guest shopper",
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
    "put_item": "operator",
    "get_item": "guest shopper feed operator engineer",
    "buy": "guest shopper",
    "grant": "operator",
    "subscribe": "guest shopper feed operator engineer",
    "saw": "guest shopper feed operator engineer",
    "get_members": "guest shopper feed operator engineer",
    "renew": "guest shopper feed operator engineer",
    "unsubscribe": "guest shopper feed operator engineer",
    "get_offers": "guest shopper feed operator engineer",
    "find_stores": "guest shopper feed operator engineer",
    "search": "guest shopper feed operator engineer",
    "route": "guest shopper feed operator engineer",
    "isochrone": "guest shopper feed operator engineer",
    "distances": "guest shopper feed operator engineer",
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
    "host_anchor": "guest shopper operator",
    "resolve_anchors": "guest shopper feed operator engineer",
    "anchors_near": "guest shopper feed operator engineer",
    "observe_anchor": "guest shopper feed operator",
    "remove_anchors": "guest shopper operator",
    "carry_anchors": "feed operator",
    "get_anchor_graph": "operator",
    "refine_anchors": "operator",
    "scene_sync": "guest shopper feed operator engineer",
    "scene_apply": "guest shopper operator",
    "localise": "guest shopper feed operator engineer",
    "scene_presence": "guest shopper operator",
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
    assert permits(role, frame) == (frame in frames_of(role)) == (role in MATRIX[tag].split())


def test_the_table_names_no_frame_that_is_not() -> None:
    assert set(NEEDS) == set(EVERY_FRAME)
    assert set(TOPIC_NEEDS) == set(get_args(Topic))
    assert set(RESOURCE_NEEDS) == set(get_args(Resource))
    permissions = set(get_args(Permission))
    assert len(permissions) == 14
    assert set().union(*GRANTED.values()) == permissions, "each is somebody's"
    assert set().union(*NEEDS.values(), TOPIC_NEEDS.values(), RESOURCE_NEEDS.values()) == permissions, "each is of use"


def test_what_no_table_knows_nobody_may() -> None:
    class Unknown:
        pass

    assert not any(permits(role, Unknown) for role in ROLES)


@pytest.mark.parametrize(("resource", "roles"), [
    ("GET /v1/venues", "guest shopper feed operator engineer"),
    ("GET /v1/venues/{tenant}/{venue}", "guest shopper feed operator engineer"),
    ("GET /v1/profile", "operator engineer"),
    ("/v1/webhooks", "operator"),
    ("/v1/users", "operator"),
    ("GET /v1/scenarios", "operator engineer"),
    ("/v1/runs", "operator"),
])  # fmt: skip
def test_each_role_may_ask_for_exactly_its_resources(resource: Any, roles: str) -> None:
    assert [role for role in ROLES if permits(role, resource)] == roles.split()


def test_the_matrix_is_published_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "permissions.md").read_text()
    assert matrix() in page, "write docs/permissions.md anew from `python -m gateway.permissions`"


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
        ("venue/v/anchors", "guest shopper feed operator engineer"),
        ("venue/v/scene/hall", "guest shopper feed operator engineer"),
        ("venue/v/presence/hall", "guest shopper feed operator engineer"),
        ("payments", "operator engineer"),
    ],
)
def test_each_role_may_read_exactly_its_topics(topic: str, roles: str) -> None:
    name = TopicName.parse(topic)
    assert [role for role in ROLES if permits(role, f.Subscribe, name.kind)] == [role for role in ROLES if role in roles.split()]


@pytest.mark.parametrize(
    "topic",
    ["", "venue", "venue/v", "venue/v/pushes", "venue/v/dots", "venue/v/dots/255", "venue/v/dots/01", "venue/v/dots/-1", "venue/v/dots/٣",
     "venue//stats", "venue/a/b/stats", "venue/v/stats/0", "venue/v/scene", "venue/v/scene/", "venue/v/scene/a/b", "venue/v/anchors/0", "payments/x", "esp:other:payments", "venue/../stats"],
)  # fmt: skip
def test_what_is_no_topic_is_refused(topic: str) -> None:
    with pytest.raises(InvalidInput):
        TopicName.parse(topic)
