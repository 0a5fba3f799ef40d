"""Writes the golden files: `python -m tests.gateway.make_golden`. A change of an existing file is a break of the wire; new files are additions."""

from __future__ import annotations

from pathlib import Path

from gateway.codec import MSGPACK, to_json_text
from tests.gateway.examples import CLIENT, SERVER

FOLDER = Path(__file__).parent / "golden"


def golden() -> dict[str, str]:
    """File name -> content, for every frame in both formats."""
    out: dict[str, str] = {}
    for frame in (*CLIENT, *SERVER):
        tag = frame.__struct_config__.tag
        out[f"{tag}.json"] = to_json_text(frame) + "\n"
        out[f"{tag}.msgpack"] = MSGPACK.encode(frame).hex() + "\n"
    return out


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, content in golden().items():
        (FOLDER / name).write_text(content)
