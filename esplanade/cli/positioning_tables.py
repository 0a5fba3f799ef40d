"""`esplanade positioning fingerprints`: how well a table of single scans (UJIIndoorLoc's format) locates phones that it has never seen. Reads only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer


def fingerprints(
    table: Annotated[Path, typer.Argument(help="Table in UJIIndoorLoc's format (.csv or .csv.xz).")],
    test: Annotated[Path | None, typer.Option(help="Table to locate; left out: every phone's rows by the rows of other phones and users.")] = None,
    folds: Annotated[int, typer.Option(min=2, max=1_000, help="So many parts are left out in turn; at most one for each group of phones.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Which groups of phones go together, where there are fewer folds than groups.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Last line: the figures as JSON.")] = False,
) -> None:
    """Errors in metres, and how often building and floor are right, ours beside plain nearest neighbours."""
    from spatial.positioning.fingerprint_score import as_rows, score_fingerprints, score_unseen_phones
    from spatial.positioning.fingerprints import read_ujiindoorloc

    threads = os.cpu_count() or 1
    known = read_ujiindoorloc(table)
    if test is None:
        figures = score_unseen_phones(known, folds=folds, seed=seed, threads=threads)
    else:
        figures = score_fingerprints(known, read_ujiindoorloc(test), threads=threads)
    rows = as_rows(figures)
    for name, row in rows.items():
        print(f"{name:9}", " ".join(f"{key}={value:g}" for key, value in row.items()))
    if as_json:
        print(json.dumps(rows))
