"""Each process of a service loads what it runs and no more: five of them start at once on two cores, so that every import is paid five times before the service is ready."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.services.stack import ROOT

KERNELS = ("numba", "scipy", "rtree", "pyarrow", "open3d")


@pytest.mark.parametrize("module", ["esplanade.cluster", "esplanade.gateway_process", "esplanade.api_process"])
def test_what_runs_no_kernels_loads_none(module: str) -> None:
    script = f"import sys, {module}; print(*[name for name in {KERNELS} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert told.stdout.split() == [], "import it where it is used, in a thread, or under TYPE_CHECKING where it is only named"
