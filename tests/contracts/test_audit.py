"""What every audit trail promises. That no role can change or remove a line is in test_postgres.py."""

from __future__ import annotations

import msgspec
import pytest

from esplanade.core.errors import InvalidInput
from esplanade.storage.audit import AuditLine, AuditLog

LINE = AuditLine(
    bytes(range(16)), "demo", 1_000, "operator:7", "offer.create", "parkside/o1", "127.0.0.1", "done",
    {"title": "Zehn %", "starts": 5, "share": 0.5, "flash": True, "none": None},
)  # fmt: skip


def line(number: int, **changes: object) -> AuditLine:
    return msgspec.structs.replace(LINE, id=number.to_bytes(16, "big"), at_unix_ms=1_000 + number, **changes)


async def test_a_line_is_read_back_as_it_was_written(audit_log: AuditLog) -> None:
    await audit_log.append([LINE])
    assert await audit_log.lines("demo") == [LINE]


async def test_lines_come_in_order_of_time_from_a_time_on_and_no_more_than_asked_for(audit_log: AuditLog) -> None:
    await audit_log.append([line(3), line(1)])
    await audit_log.append([line(2)])
    assert await audit_log.lines("demo") == [line(1), line(2), line(3)]
    assert await audit_log.lines("demo", since_unix_ms=1_002) == [line(2), line(3)]
    assert await audit_log.lines("demo", limit=2) == [line(1), line(2)]


async def test_a_batch_sent_twice_stands_once_and_as_it_was(audit_log: AuditLog) -> None:
    await audit_log.append([line(1), line(2)])
    await audit_log.append([line(2, outcome="forged"), line(3)])
    assert await audit_log.lines("demo") == [line(1), line(2), line(3)]


async def test_a_tenant_reads_its_own_lines_alone(audit_log: AuditLog) -> None:
    await audit_log.append([line(1), line(2, tenant="other")])
    assert await audit_log.lines("demo") == [line(1)]
    assert await audit_log.lines("other") == [line(2, tenant="other")]
    assert await audit_log.lines("third") == []


async def test_nothing_to_append_is_nothing(audit_log: AuditLog) -> None:
    await audit_log.append([])
    assert await audit_log.lines("demo") == []


@pytest.mark.parametrize("limit", [0, 10_001])
async def test_a_limit_out_of_range_is_refused(audit_log: AuditLog, limit: int) -> None:
    with pytest.raises(InvalidInput):
        await audit_log.lines("demo", limit=limit)
