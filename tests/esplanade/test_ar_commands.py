"""`esplanade ar pack`: what it says where it gets nothing. What it fetches is tested in tests/gateway/test_packs.py."""

from __future__ import annotations

import socket
from pathlib import Path

from typer.testing import CliRunner

from esplanade.cli.ar import app


def test_a_pack_of_a_service_that_does_not_answer_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    to = tmp_path / "hall.pack"
    done = CliRunner().invoke(app, ["pack", "parkside", "0,1,2,30", "--to", str(to), "--api", f"http://127.0.0.1:{port}"])
    assert done.exit_code == 2
    assert "unavailable" in done.output
    assert "ask again" in done.output
    assert list(tmp_path.iterdir()) == []
