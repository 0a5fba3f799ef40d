"""Bytes of a fuzzer's choosing through the session and every decoder that a stranger reaches: nothing may be raised but what is promised, nothing may grow, and what reads back must be the same.

    python -m tests.proof.fuzz [--seconds 600] [--target NAME ...] [--corpus FOLDER] [--processes 2]

With atheris (libFuzzer, led by coverage) where it is installed, else with Hypothesis' `fuzz_one_input` and a database in the corpus' folder. Seeds: the golden frames of tests/gateway.
Each target has a share of the time and a process of its own. The last line is JSON; exit code 1 where something was found, and the input lies in the corpus' folder as `crash-*`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Final

from ar.scene_ops import decode as decode_ops
from ar.scene_ops import encode as encode_ops
from esplanade.core.errors import EsplanadeError
from gateway import session as s
from gateway.auth import Identity, Signer, TopicName, Verifier
from gateway.codec import CODECS, Unreadable
from gateway.permissions import ROLES, permits
from spatial.columns import PositionColumns
from spatial.venue_files import parse_venue
from tests.gateway.examples import CLIENT

FAR_S: Final = 1e12
NOW_S: Final = 1_700_000_000.0
MAX_INPUT: Final = 4096
MAX_MESSAGES: Final = 64
SIGNER: Final = Signer(bytes(range(32)))
VERIFIER: Final = Verifier(SIGNER.public_key)


def _messages(data: bytes) -> Iterator[bytes]:
    """Cut by lengths of two bytes."""
    at = 0
    for _ in range(MAX_MESSAGES):
        if at + 2 > len(data):
            return
        n = int.from_bytes(data[at : at + 2], "little")
        yield data[at + 2 : at + 2 + n]
        at += 2 + n


def session(data: bytes) -> None:
    """byte 0: role and format; byte 1: seconds between messages; then messages, after a hello that was admitted or not."""
    if len(data) < 3:
        return
    role = ROLES[data[0] % len(ROLES)]
    text = bool(data[0] & 64)
    under = s.Session("s-1", "json" if text else "msgpack", 0.0)
    if data[0] & 128:
        under.receive(CODECS[under.codec.format].encode(CLIENT[0]) if not text else CODECS["json"].encode(CLIENT[0]).decode(), 0.0)
        under.admit(Identity(7, "demo", role, "crowd" if role == "feed" else None, FAR_S), now=0.0, now_ms=5)
    now_s, step_s = 0.0, data[1] / 16
    for raw in _messages(data[2:]):
        now_s += step_s
        before = under.state
        actions = [*under.receive(raw.decode("utf-8", "replace") if text else raw, now_s), *under.poll(now_s, 0.0)]
        closes = [i for i, action in enumerate(actions) if isinstance(action, s.Close)]
        assert closes in ([], [len(actions) - 1]), "a Close is the last action, and one"
        assert (under.state == "closed") == (bool(closes) or before == "closed"), "closed, and nobody was told"
        for action in actions:
            if isinstance(action, s.Request):
                assert permits(role, type(action.frame)), f"{role} may not {type(action.frame).__name__}"
            elif isinstance(action, s.Send):
                under.codec.encode(action.frame)
        assert 0 <= under.in_flight <= under.limits.requests
        assert len(under.topics) <= under.limits.subscriptions


def msgpack(data: bytes) -> None:
    _decode(CODECS["msgpack"], data)


def json_text(data: bytes) -> None:
    _decode(CODECS["json"], data.decode("utf-8", "surrogateescape"))


def _decode(codec: s.Codec, message: bytes | str) -> None:
    """What can be read is the same after it was written and read again."""
    for frame in codec.decode(message):
        if isinstance(frame, Unreadable):
            assert frame.reason
            frame.reason.encode("utf-8", "surrogateescape")
            continue
        again = codec.encode(frame)
        [back] = codec.decode(again.decode() if codec.text else again)
        assert codec.encode(back) == again  # type: ignore[arg-type]  # NaN is not equal to itself, its bytes are


def token(data: bytes) -> None:
    """A token that was not signed here verifies for nobody."""
    text = data.decode("utf-8", "replace")
    try:
        VERIFIER.verify(text, NOW_S)
    except EsplanadeError:
        return
    raise AssertionError(f"a forged token verified: {text!r}")


def topic(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        name = TopicName.parse(text)
    except EsplanadeError:
        return
    assert name.kind


def scene(data: bytes) -> None:
    """Operations that were read are written and read to the same."""
    try:
        ops = decode_ops(data)
    except EsplanadeError:
        return
    assert decode_ops(encode_ops(ops)) == ops or any(value != value for op in ops for value in vars_of(op)), "operations changed on the way"


def vars_of(op: object) -> list[object]:
    return [getattr(op, name) for name in getattr(op, "__struct_fields__", ())]


def columns(data: bytes) -> None:
    if not data:
        return
    n = data[0]
    parts = data[1 : 1 + 4 * n], data[1 + 4 * n : 1 + 5 * n], data[1 + 5 * n : 1 + 9 * n], data[1 + 9 * n : 1 + 13 * n]
    try:
        read = PositionColumns.unpack(*parts)
    except EsplanadeError:
        return
    assert read.pack() == parts


def venue(data: bytes) -> None:
    try:
        parse_venue(data, "fuzz")
    except EsplanadeError:
        return


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "session": session, "msgpack": msgpack, "json": json_text, "token": token, "topic": topic, "scene": scene, "columns": columns, "venue": venue,
}  # fmt: skip
SHARES: Final = {"session": 4, "msgpack": 2, "json": 2, "scene": 3, "venue": 2}
"""Of the time; 1 where none is said."""
READS: Final = (
    "gateway.session",
    "gateway.codec",
    "gateway.auth",
    "gateway.filters",
    "gateway.permissions",
    "ar.scene_ops",
    "spatial.columns",
    "spatial.venue",
)
"""Whose branches the fuzzer is led by."""


def seeds(target: str) -> list[bytes]:
    """What a fuzzer begins with."""
    golden = [CODECS["msgpack"].encode(frame) for frame in CLIENT]
    match target:
        case "session":
            one = [bytes([128 + i % len(ROLES), 1]) + len(g).to_bytes(2, "little") + g for i, g in enumerate(golden)]
            everything = b"".join(len(g).to_bytes(2, "little") + g for g in golden)
            return [*one, *(bytes([128 + role, 3]) + everything[:MAX_INPUT] for role in range(len(ROLES)))]
        case "msgpack":
            return [*golden, b"\x92" + golden[1] + golden[2]]
        case "json":
            return [CODECS["json"].encode(frame) for frame in CLIENT]
        case "token":
            return [SIGNER.issue(1, "demo", "shopper", None, 1, 0.0).encode()]
        case "topic":
            return [b"venue/parkside/dots/1", b"payments", b"venue/v/scene/hall", b"venue/v/zone/q"]
        case "scene":
            from ar.scene import Scene

            made = Scene("1:fuzz")
            stage = made.create(now_ms=1)
            made.set(stage, "name", "Stage", now_ms=1)
            made.set(stage, "translation", [1.0, 2.0, 3.0], now_ms=2)
            made.move(made.create(now_ms=3), stage, now_ms=4)
            return [made.delta({})]
        case "columns":
            return [bytes([2]) + bytes(26)]
        case _:
            point = b'{"id":"v","name":"V","kind":"mall","origin":{"lat_deg":0,"lon_deg":0},"levels":[{"id":"L0","ordinal":0,"name":"G","short_name":"G","outline":[[[[0,0],[9,0],[9,9]]]]}]}'
            return [point]


def _read_by_strangers() -> Iterator[FunctionType]:
    """Every function of the modules whose branches lead the fuzzer."""
    for name, module in list(sys.modules.items()):
        if not name.startswith(READS):
            continue
        for held in list(vars(module).values()):
            if getattr(held, "__module__", None) != name:
                continue
            inside = vars(held).values() if isinstance(held, type) else (held,)
            for one in inside:
                function = one.fget if isinstance(one, property) else getattr(one, "__func__", one)
                if isinstance(function, FunctionType):
                    yield function


def fuzz(target: str, seconds: float, corpus: Path) -> None:
    """In this process, until the time is over; ends it with an exception or exit code where something is found."""
    one = TARGETS[target]
    folder = corpus / target
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds(target):
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    if importlib.util.find_spec("atheris") is not None:
        import atheris

        for function in _read_by_strangers():
            atheris.instrument_func(function)
        atheris.Setup(
            [
                sys.argv[0],
                str(folder),
                f"-max_total_time={max(1, round(seconds))}",
                f"-max_len={MAX_INPUT}",
                f"-artifact_prefix={corpus}/crash-{target}-",
            ],
            one,
        )
        atheris.Fuzz()
        return
    _blind(target, one, seconds, folder, corpus)


def _blind(target: str, one: Callable[[bytes], None], seconds: float, folder: Path, corpus: Path) -> None:
    """Seeds changed at random by Hypothesis; what failed before is tried first."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
    from hypothesis.database import DirectoryBasedExampleDatabase

    known = [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()]

    @settings(database=DirectoryBasedExampleDatabase(corpus / f"hypothesis-{target}"), deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from(known),
        st.lists(st.tuples(st.integers(0, MAX_INPUT), st.binary(max_size=8), st.integers(0, 8)), max_size=8),
        st.binary(max_size=MAX_INPUT),
    )
    def changed(seed: bytes, cuts: list[tuple[int, bytes, int]], tail: bytes) -> None:
        data = seed
        for at, put, drop in cuts:
            data = data[:at] + put + data[at + drop :]
        one((data + tail)[:MAX_INPUT])

    source = os.urandom
    run = changed.hypothesis.fuzz_one_input
    until_s, n = time.monotonic() + seconds, 0
    while time.monotonic() < until_s:
        run(source(512))
        n += 1
    print(f"Done {n} runs", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.proof.fuzz")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS))
    parser.add_argument("--corpus", type=Path, help="kept from run to run; a folder of its own where none is given")
    parser.add_argument("--alone", choices=sorted(TARGETS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    corpus = arguments.corpus or Path(tempfile.mkdtemp(prefix="esplanade-fuzz-"))
    if arguments.alone:
        fuzz(arguments.alone, arguments.seconds, corpus)
        return
    targets = arguments.target or list(TARGETS)
    whole = sum(SHARES.get(target, 1) for target in targets)
    found, told = [], {}
    for target in targets:
        seconds = arguments.seconds * SHARES.get(target, 1) / whole
        command = [sys.executable, "-m", "tests.proof.fuzz", "--alone", target, "--seconds", f"{seconds:.0f}", "--corpus", str(corpus)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10 * seconds + 600, check=False)
        said = (done.stdout + done.stderr).strip().splitlines()
        told[target] = {"seconds": round(seconds), "said": next((line for line in reversed(said) if "Done" in line or "cov:" in line), "")}
        print(json.dumps({"target": target, **told[target], "rc": done.returncode}), flush=True)
        if done.returncode != 0:
            found.append(target)
            print("\n".join(said[-40:]), flush=True)
    led = "atheris" if importlib.util.find_spec("atheris") is not None else "hypothesis"
    print(json.dumps({"name": "fuzz", "led_by": led, "corpus": str(corpus), "found": found, "targets": told}), flush=True)
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
