"""docs/protocol.md and docs/metrics.md say what the code says: every frame, field, example, code, limit and metric."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from actors import ledger, positions
from esplanade.core import errors
from gateway import codes, metrics
from gateway import frames as f
from gateway import session as s
from gateway.limits import LIMITS
from tests.gateway.make_golden import FOLDER

DOCS = Path(__file__).parents[2] / "docs"
PROTOCOL = (DOCS / "protocol.md").read_text()
METRICS = (DOCS / "metrics.md").read_text()
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PROTOCOL, re.S | re.M))
FRAMES = (*get_args(f.ClientFrame), *get_args(f.ServerFrame))


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.__struct_config__.tag)
def test_every_frame_has_a_section_with_its_golden_example(frame: type) -> None:
    tag = frame.__struct_config__.tag  # type: ignore[attr-defined]
    [example] = re.findall(r"```json\n(.*?)\n```", SECTIONS[tag], re.S)
    assert json.loads(example) == json.loads((FOLDER / f"{tag}.json").read_text())


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.__struct_config__.tag)
def test_every_field_is_named_in_its_section(frame: type) -> None:
    section = SECTIONS[frame.__struct_config__.tag]  # type: ignore[attr-defined]
    for field in frame.__struct_fields__:  # type: ignore[attr-defined]
        assert re.search(rf'[`"]{field}[`"]', section), field


def test_no_section_is_of_a_frame_that_is_gone() -> None:
    tags = {frame.__struct_config__.tag for frame in FRAMES}
    assert set(SECTIONS) - tags == {"Resume"}


def test_every_error_code_is_in_the_table() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.EsplanadeError) and kind is not errors.EsplanadeError
    ]
    for kind in kinds:
        assert f"| `{kind.code}` | {'yes' if kind.retryable else 'no'} |" in PROTOCOL


def test_every_refusal_of_a_behaviour_is_named() -> None:
    folder = Path(ledger.__file__).parent
    written = {code for path in folder.glob("*.py") for code in re.findall(r'Rejected\(\s*code="(\w+)"', path.read_text())}
    assert len(written) > 5
    for code in written | set(ledger.CODES):
        assert f"`{code}`" in PROTOCOL, code


@pytest.mark.parametrize("code", codes.CloseCode, ids=lambda code: code.name)
def test_every_close_code_is_in_the_table(code: codes.CloseCode) -> None:
    assert f"| {int(code)} |" in PROTOCOL
    assert code.reconnect == (int(code) >= 4100)


def test_the_numbers_are_those_of_the_code() -> None:
    for text in (f"{s.STRIKES} frames that could not be read", f"within {s.HELLO_S:g} s", f"`heartbeat_s` ({s.HEARTBEAT_S:g})",
                 f"within {s.REDELIVER_S:g} s is sent again", f"array of 1 to {f.MAX_BATCH} frames", f"{f.MAX_GUEST_MESSAGE_BYTES:,} bytes"):  # fmt: skip
        assert text in PROTOCOL, text
    assert s.DELIVERIES == 4
    assert f"at most {positions.CHECKPOINT_TICKS} ticks" in PROTOCOL
    for role, limits in LIMITS.items():
        row = f"{limits.message_bytes // 1024} KiB" if limits.message_bytes < 2**20 else f"{limits.message_bytes // 2**20} MiB"
        [line] = [line for line in PROTOCOL.splitlines() if line.startswith("|") and role in line.split("|")[1] and ("KiB" in line or "MiB" in line)]
        cells = [cell.strip() for cell in line.split("|")[2:6]]
        assert cells == [row, f"{limits.frames_per_s:,.0f} ({limits.burst:,})", str(limits.subscriptions), str(limits.requests)]


def test_the_subprotocols_are_named() -> None:
    for name in f.SUBPROTOCOLS:
        assert f"`{name}`" in PROTOCOL


NAMES = [name for group in (metrics.CounterName, metrics.GaugeName, metrics.HistogramName, metrics.ScrapeName) for name in get_args(group)]


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_is_documented(name: str) -> None:
    [line] = [line for line in METRICS.splitlines() if line.startswith(f"| `{name}` |")]
    assert metrics.HELP[name] in line  # type: ignore[index]
    if name in metrics.LABEL:
        assert f"`{metrics.LABEL[name]}`" in line


def test_no_metric_is_documented_that_is_not() -> None:
    assert set(re.findall(r"^\| `(esplanade_\w+)` \|", METRICS, re.M)) == set(NAMES)
