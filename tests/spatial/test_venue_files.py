"""Venue documents are read with one clear error and written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from esplanade.core.errors import EsplanadeError, InvalidInput
from scenarios.venues import make_festival
from spatial.venue_files import dump_venue, load_venue, save_venue, write_whole


def test_a_venue_survives_the_file_unchanged(tmp_path: Path) -> None:
    venue = make_festival.make()
    save_venue(venue, tmp_path / "v.json")
    assert load_venue(tmp_path / "v.json") == venue
    assert dump_venue(load_venue(tmp_path / "v.json")) == (tmp_path / "v.json").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["v.json"]


def _document() -> dict:  # type: ignore[type-arg]
    loaded: dict = json.loads(dump_venue(make_festival.make()))  # type: ignore[type-arg]
    return loaded


def _without_levels(document: dict) -> None:  # type: ignore[type-arg]
    document["levels"] = []


def _ring_of_two(document: dict) -> None:  # type: ignore[type-arg]
    document["units"][0]["polygon"][0][0] = [[0, 0], [1, 1]]


def _twice(document: dict) -> None:  # type: ignore[type-arg]
    document["units"].append(document["units"][0])


def _dangling(document: dict) -> None:  # type: ignore[type-arg]
    document["openings"][0]["unit_id"] = "nowhere"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_levels, "levels"),
        (_ring_of_two, r"units\.0\.polygon"),
        (_twice, r"belongs to two features \(unit on level G, unit on level G\); .*: give one of them another"),
        (_dangling, "'nowhere' is no unit"),
    ],
)
def test_a_broken_document_is_refused_in_one_line_with_the_place(tmp_path: Path, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    document = _document()
    spoil(document)
    path = tmp_path / "v.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidInput, match=message) as caught:
        load_venue(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 5000, b"null", b'{"format": "esplanade.venue/9"}'])
def test_what_is_no_document_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.json").write_bytes(content)
    with pytest.raises(InvalidInput):
        load_venue(tmp_path / "v.json")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(EsplanadeError, match=str(path)):
            load_venue(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_whole(tmp_path / "none" / "v.json", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_whole(tmp_path / "folder", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
