"""`esplanade ar pack` says what is wrong where it gets nothing (what it fetches is tested in tests/gateway/test_packs.py); `esplanade ar localise` tries a map without a service."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from actors.map_shelf import store_map
from ar.clouds import open3d
from esplanade.cli.ar import app
from esplanade.settings import load_settings
from esplanade.storage.blobs import open_blobs
from tests.ar.room import CAMERA, built_map, depth_of, looking

LENS = f"{CAMERA.fx},{CAMERA.fy},{CAMERA.cx},{CAMERA.cy}"


def test_a_pack_of_a_service_that_does_not_answer_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    to = tmp_path / "hall.pack"
    done = CliRunner().invoke(app, ["pack", "parkside", "0,1,2,30", "--to", str(to), "--api", f"http://127.0.0.1:{port}"])
    assert done.exit_code == 2
    assert "unavailable" in done.output
    assert "ask again" in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the made-up room as the map of level 0, and a depth image in it."""
    data = tmp_path_factory.mktemp("data")
    store_map(open_blobs(load_settings(data_dir=data).blobs), "demo", "parkside", 0, built_map(), made_ms=1)
    depth = np.rint(depth_of(looking((1.2, 1.0, 1.5), (3.5, 2.5, 0.9))) * 1000).astype(np.uint16)
    open3d().io.write_image(str(data / "seen.png"), open3d().geometry.Image(depth))
    open3d().io.write_image(str(data / "blank.png"), open3d().geometry.Image(np.full_like(depth, 1500)))
    (data / "cut.png").write_bytes((data / "seen.png").read_bytes()[:200])
    return data


def test_a_depth_image_is_placed_in_the_newest_map_without_a_service(shelf: Path) -> None:
    done = CliRunner().invoke(app, ["localise", str(shelf / "seen.png"), "--venue", "parkside", "--camera", LENS, "--data-dir", str(shelf)])
    assert done.exit_code == 0, done.output
    at = [float(one) for one in done.output.removeprefix("at ").split(" m,")[0].split(",")]
    assert np.linalg.norm(np.subtract(at, (1.2, 1.0, 1.5))) < 0.02


@pytest.mark.parametrize(
    ("name", "options", "code", "says"),
    [
        ("blank.png", ("--camera", LENS), 1, "not known"),
        ("seen.png", (), 2, "--camera fx,fy,cx,cy"),
        ("seen.png", ("--camera", LENS, "--near", "1,2,3"), 2, "--near x,y,z,within"),
        ("seen.png", ("--camera", LENS, "--level", "3"), 2, "esplanade ar map"),
        ("cut.png", ("--camera", LENS), 2, "cut off"),
        ("none.ply", (), 2, "no such file"),
    ],
)
def test_what_cannot_be_placed_is_told_with_the_reason(shelf: Path, name: str, options: tuple[str, ...], code: int, says: str) -> None:
    done = CliRunner().invoke(app, ["localise", str(shelf / name), "--venue", "parkside", "--data-dir", str(shelf), *options])
    assert done.exit_code == code, done.output
    assert says in done.output
