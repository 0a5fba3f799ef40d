"""`esplanade keys`, `operators`, `revoke`: what they refuse before they touch anything. What they do is in tests/services/test_identities.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from esplanade.core.errors import InvalidInput, NotFound
from tests.esplanade.test_backup_commands import esplanade

DEMO = ("--tenant", "demo")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("keys", "create", "till", *DEMO, "--role", "shopper"), "people sign in"),
        (("keys", "create", "till", *DEMO, "--role", "root"), "root"),
        (("keys", "create", "till", *DEMO, "--permission", "money.print"), "money.print"),
        (("keys", "create", "till", *DEMO, "--role", "engineer", "--permission", "money.adjust"), "engineer has"),
        (("keys", "create", "till", *DEMO, "--unit", "stand-1"), "--venue"),
        (("keys", "create", "till", *DEMO, "--venue", "../other"), "venue"),
        (("keys", "create", "a\x1b[2Jb", *DEMO), "printed"),
        (("keys", "create", "till", *DEMO, "--expires", "soon"), "soon"),
        (("operators", "add", "ann", *DEMO, "--role", "guest"), "guest"),
        (("operators", "change", "ann", *DEMO), "nothing to change"),
        (("revoke", *DEMO), "either"),
        (("revoke", *DEMO, "--subject", "7", "--sign-in", "x"), "either"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...], named: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=named):
        esplanade(*arguments, "--data-dir", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_password_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="password-file"):
        esplanade("operators", "add", "ann", *DEMO, "--password-file", tmp_path / "nowhere", "--data-dir", tmp_path)


def test_without_a_database_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="holds no database"):
        esplanade("keys", "list", *DEMO, "--data-dir", tmp_path)
