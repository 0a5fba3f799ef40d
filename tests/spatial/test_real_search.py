"""Search on real names: the real malls' stores with every typo, real aliases of brands, real misspellings. Needs ESPLANADE_DATA."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from spatial.importers.malls import read_site
from spatial.search import Item, SearchIndex, venue_items
from spatial.search_text import words_of

DATA = os.environ.get("ESPLANADE_DATA", "")
pytestmark = [pytest.mark.data, pytest.mark.skipif(not DATA, reason="ESPLANADE_DATA does not name the folder of the real data")]


def mistyped(name: str, rng: np.random.Generator) -> Iterator[str]:
    """The name with one typo of each kind at each letter from the second on."""
    letters = [i for i, c in enumerate(name) if c.isalnum()][1:]
    for i in letters:
        other = chr(int(rng.integers(97, 123)))
        yield name[:i] + name[i + 1 :]
        yield name[:i] + other + name[i:]
        yield name[:i] + other + name[i + 1 :]
        if i + 1 < len(name) and name[i + 1].isalnum():
            yield name[:i] + name[i + 1] + name[i] + name[i + 2 :]


@pytest.mark.parametrize("site", ["site1", "site2"])
def test_every_store_is_found_first_or_second_with_one_typo_anywhere(site: str) -> None:
    venue = read_site(Path(DATA) / "malls" / site).venue
    index, rng = SearchIndex.build(venue_items(venue)), np.random.default_rng(1)
    tried, missed = 0, []
    for name in {o.name for o in venue.occupants}:
        if sum(c.isalnum() for c in name) < 5:
            continue
        for query in mistyped(name, rng):
            found = list(dict.fromkeys(hit.item.name for hit in index.search(query, limit=10)))[:2]
            tried += 1
            if name not in found:
                missed.append((query, name, found))
    assert tried > 1500
    assert missed == []


def test_real_aliases_find_their_brands() -> None:
    folder = Path(DATA) / "store_names"
    with (folder / "nsi_brands.csv").open(newline="") as file:
        brands = [Item(row["id"], row["name"]) for row in csv.DictReader(file)]
    with (folder / "nsi_alias_pairs_dev.csv").open(newline="") as file:
        pairs = [(row["query"], row["expected_id"]) for row in csv.DictReader(file)]
    index = SearchIndex.build(brands)
    name_of = {brand.id: brand.name for brand in brands}
    ranks = []
    for query, expected in pairs[::4]:
        found = list(dict.fromkeys(hit.item.name for hit in index.search(query[:200], limit=30)))
        ranks.append(found.index(name_of[expected]) if name_of[expected] in found else 99)
    rank = np.array(ranks)
    report("aliases", rank)
    assert (rank < 10).mean() > 0.57  # the others share no word with their brand
    assert (rank == 0).mean() > 0.33  # an alias often is the very name of another brand


def test_real_misspellings_find_their_words() -> None:
    pairs = []
    for line in (Path(DATA) / "store_names" / "real_typos_dev.txt").read_text().splitlines():
        right, _, wrongs = line.partition(": ")
        pairs += [(re.sub(r"\*\d+$", "", wrong.strip()).replace("_", " "), right.replace("_", " ")) for wrong in wrongs.split(",")]
    pairs = [(wrong, right) for wrong, right in pairs if words_of(wrong) and len(right) >= 5]
    lexicon = sorted({right for _, right in pairs})
    index = SearchIndex.build([Item(word, word) for word in lexicon])
    ranks = []
    for wrong, right in pairs[::8]:
        found = [hit.item.id for hit in index.search(wrong, limit=30)]
        ranks.append(found.index(right) if right in found else 99)
    rank = np.array(ranks)
    report("misspellings", rank)
    assert (rank < 10).mean() > 0.63  # the strict rule alone could reach 0.47, with one typo more 0.69
    assert (rank == 0).mean() > 0.5


def report(what: str, rank: np.ndarray) -> None:  # type: ignore[type-arg]
    print(f"{what}: {len(rank)} queries, first {np.mean(rank == 0):.3f}, in three {np.mean(rank < 3):.3f}, in ten {np.mean(rank < 10):.3f}")
