"""New walks for a model that is in use: what they teach is added to the survey it keeps a digest of, and the fields are solved anew.

Owns what an update may decide: which access points vanished, which came. How people walk and how wide the regions are stays as the fit learned it, since walks that were not kept cannot be located again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from esplanade.core.errors import InvalidInput
from spatial.positioning.digest import Digest, digest_of, joined, known_walks
from spatial.positioning.ground import Floor
from spatial.positioning.model import Model
from spatial.positioning.radio_map import FULL, LEAST_SCANS, LEAST_WALKS, LOUD_DBM, SILENT_DBM, SPREAD_M, RadioMap, fit_fields
from spatial.positioning.score import Surveyed

LOUD_DB: Final = LOUD_DBM - SILENT_DBM
MISSED_DB: Final = 22.0
MISSED: Final = 8
"""A transmitter has vanished when nothing is heard of it on new ground of so many squares where the map has it this strong: phones miss one in five of such readings."""
BELIEVED: Final = 1 / 3
"""When more than this share of what should be heard is not, the phone is deaf for a band or in another building, and nothing has vanished."""


@dataclass(frozen=True, slots=True)
class Updated:
    """model: one version up. added: new walks that were used; known: walks that were in it already, left out. came, vanished: transmitters that got a field and that lost theirs because they are gone.
    doubted: so many seemed to have vanished that it was not believed."""

    model: Model
    added: int
    known: int
    came: tuple[str, ...]
    vanished: tuple[str, ...]
    doubted: int


def update(model: Model, walks: Sequence[Surveyed]) -> Updated:
    """Add surveyed walks. Raises InvalidInput where the model holds no digest, or no new walk has waypoints on one of its floors."""
    if model.digest is None:
        raise InvalidInput(f"{model.site}: the model holds no digest of its survey, so nothing can be added; fit it again with all walks")
    held = known_walks(model.digest, [walk for walk, _, _ in walks])
    fresh = [walk for walk, known in zip(walks, held, strict=True) if not known]
    new = digest_of(model.floors, fresh)
    if not len(new.walk):
        raise InvalidInput(
            f"{model.site}: {sum(held)} of {len(walks)} walks are in the model already, and none of the others has waypoints on {[f.name for f in model.floors]}; give new ones"
        )
    missed, expected = _missed(model, new)
    gone = set(missed) if len(missed) <= BELIEVED * expected else set()
    whole = joined(model.digest.without(gone), new)
    radio = _map_of(whole, model.floors)
    before = set(model.radio.transmitters)
    return Updated(
        replace(model, radio=radio, walks=model.walks + len(new.walk), version=model.version + 1, digest=whole), len(new.walk), sum(held),
        tuple(name for name in radio.transmitters if name not in before), tuple(sorted(gone)), 0 if gone else len(missed),
    )  # fmt: skip


def _missed(model: Model, new: Digest) -> tuple[list[str], int]:
    """Transmitters that the new squares should hear and never do, and how many they should hear."""
    cell = np.full(len(new.key), -1, np.int64)
    for f, (floor, cell_of) in enumerate(zip(model.floors, model.radio.cell_of, strict=True)):
        mine = np.flatnonzero(new.key[:, 0] == f)
        at = np.floor((floor.from_venue(new.at_m[mine].astype(np.float64)) - np.array(floor.corner_m)) / floor.cell_m).astype(np.int64)
        inside = ((at >= 0) & (at < np.array(cell_of.shape[::-1]))).all(axis=1)
        cell[mine[inside]] = cell_of[at[inside, 1], at[inside, 0]]
    strong = model.radio.strength[:, cell[cell >= 0]] >= MISSED_DB * 255 / FULL
    should = strong.sum(axis=1) >= MISSED
    heard = set(new.names)
    return [name for name, expected in zip(model.radio.transmitters, should.tolist(), strict=True) if expected and name not in heard], int(
        should.sum()
    )


def _map_of(digest: Digest, floors: tuple[Floor, ...]) -> RadioMap:
    """As `fit` does it, from averages in place of scans."""
    often = (digest.walks >= LEAST_WALKS) & (digest.scans >= LEAST_SCANS)
    y = digest.dense(digest.names)
    kept = []
    dropped = {"rare": int((~often).sum()), "moving": 0}
    for a in np.flatnonzero(often).tolist():
        loud = digest.at_m[y[:, a] > LOUD_DB]
        if len(loud) >= 2 and np.sqrt(((loud - np.median(loud, axis=0)) ** 2).sum(axis=1).mean()) > SPREAD_M:
            dropped["moving"] += 1
        else:
            kept.append(a)
    if not kept:
        raise InvalidInput(f"radio map: none of {len(digest.names)} transmitters was heard on {LEAST_WALKS} walks; survey more")
    height = np.array([floor.ordinal for floor in floors], np.int32)[digest.key[:, 0]]
    surveyed = set(np.unique(digest.key[:, 0]).tolist())
    names = tuple(digest.names[a] for a in kept)
    return fit_fields(y[:, kept], digest.at_m.astype(np.float64), height, digest.count.astype(np.float32), surveyed, names, dropped, floors)
