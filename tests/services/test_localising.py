"""A map built by the command, a camera localised by the running service, in one of Ray's workers."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from ar.clouds import open3d
from ar.pose import Poses
from tests.ar.room import CAMERA, COLUMNS, ROWS, depth_of, looking, mapping_poses
from tests.services.stack import COMMAND, ROOT, Esplanade, environment

pytestmark = pytest.mark.services

LENS = (CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy)


def frames(folder: Path) -> None:
    """The mapping frames of the made-up room, as files."""
    for i, pose in enumerate(mapping_poses()):
        depth = np.rint(depth_of(pose) * 1000).astype(np.uint16)
        open3d().io.write_image(str(folder / f"{i}.depth.png"), open3d().geometry.Image(depth))
        np.savetxt(folder / f"{i}.pose.txt", pose.matrix()[0])


def build(service: Esplanade, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "ar", "map", "build", str(folder), "--venue", "parkside", "--data-dir", str(service.data), *options]
    return subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def asked(service: Esplanade, path: str, body: bytes, token: str = "") -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {token}"} if token else {"content-type": "application/json"}
    request = urllib.request.Request(service.api + path, data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_camera_is_localised_in_the_map_that_the_command_built(service: Esplanade, tmp_path: Path) -> None:
    _, signed = asked(service, "v1/local/token", b'{"role": "shopper", "tenant": "demo"}')
    truth = looking((1.2, 1.0, 1.5), (3.5, 2.5, 0.9))
    query = {"level": 0, "rows": ROWS, "columns": COLUMNS} | dict(zip(("fx", "fy", "cx", "cy"), LENS, strict=True))
    path = f"v1/venues/demo/parkside/localise?{urlencode(query)}"
    seen = np.rint(depth_of(truth) * 1000).astype("<u2").tobytes()
    status, problem = asked(service, path, seen, signed["token"])
    assert (status, problem["code"]) == (404, "not_found"), problem
    assert "esplanade ar map" in problem["detail"]
    frames(tmp_path)
    lens = ("--camera", ",".join(map(str, LENS)))
    (tmp_path / "9.pose.txt").rename(tmp_path / "away")
    broken = build(service, tmp_path, *lens)
    assert broken.returncode == 2
    assert "9.depth.png" in broken.stderr
    (tmp_path / "away").rename(tmp_path / "9.pose.txt")
    built = build(service, tmp_path, *lens)
    assert built.returncode == 0, built.stderr
    status, answer = asked(service, path, seen, signed["token"])
    assert status == 200, answer
    metres, radians = truth.distance(Poses.of(answer["position_m"], answer["rotation"]))
    assert metres[0] < 0.02
    assert radians[0] < 0.01
    assert answer["map"] in built.stdout
