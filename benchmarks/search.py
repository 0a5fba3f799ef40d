"""Search among 100,000 generated names with typos and unfinished words: our index against rapidfuzz's `process.extract` over all names.

The names are made from a seed: one to three words out of 30,000 that sound like brands. Queries are names with up to two typos, a third of them cut off
while being typed. The peer is the usual way to do it with the library that we build on: `rapidfuzz.process.extract(query, names, scorer=OSA.normalized_similarity)`.
"""

from __future__ import annotations

import json
import time

import numpy as np
from rapidfuzz.distance import OSA
from rapidfuzz.process import extract

from benchmarks.harness import compare
from spatial.routes import At
from spatial.search import Item, SearchIndex

ONSETS = ["b", "br", "c", "ch", "d", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pr", "r", "s", "st", "t", "tr", "v", "w", "z", ""]
VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "io", "ou"]
CODAS = ["", "", "n", "r", "s", "l", "t", "x", "ck", "nd", "m"]


def names(rng: np.random.Generator, count: int) -> list[str]:
    """Distinct made-up names."""

    def word() -> str:
        return "".join(str(rng.choice(ONSETS)) + str(rng.choice(VOWELS)) + str(rng.choice(CODAS)) for _ in range(int(rng.integers(1, 4))))

    lexicon = list(dict.fromkeys(word() for _ in range(30_000)))
    found: dict[str, None] = {}
    while len(found) < count:
        picks = rng.integers(0, len(lexicon), (count, 3))
        lengths = rng.choice([1, 2, 3], count, p=[0.3, 0.5, 0.2])
        for row, length in zip(picks.tolist(), lengths.tolist(), strict=True):
            found[" ".join(lexicon[k] for k in row[:length]).title()] = None
            if len(found) == count:
                break
    return list(found)


def mistyped(name: str, rng: np.random.Generator) -> str:
    """The name with no to two typos behind its first letter, and cut off at times."""
    text = list(name.lower())
    for _ in range(int(rng.integers(0, 3))):
        if len(text) < 4:
            break
        at, letter = int(rng.integers(1, len(text) - 1)), chr(int(rng.integers(97, 123)))
        match int(rng.integers(4)):
            case 0:
                text[at] = letter
            case 1:
                del text[at]
            case 2:
                text.insert(at, letter)
            case _:
                text[at], text[at + 1] = text[at + 1], text[at]
    whole = "".join(text)
    return whole[: max(3, int(len(whole) * rng.uniform(0.5, 1.0)))] if rng.random() < 0.33 else whole


def run(*, n: int = 100_000, repeats: int = 5) -> None:
    rng = np.random.default_rng(3)
    known = names(rng, n)
    at = rng.uniform(0, 300, (n, 2))
    began = time.perf_counter()
    index = SearchIndex.build([Item(str(i), name, at=At(0, float(x), float(y))) for i, (name, (x, y)) in enumerate(zip(known, at, strict=True))])
    built_s = time.perf_counter() - began
    queries = [mistyped(known[k], rng) for k in rng.integers(0, n, 1000)]
    lower = [name.lower() for name in known]
    waits = []

    def ours() -> float:
        took = np.empty((2, len(queries)))
        for k, query in enumerate(queries):
            start, busy = time.perf_counter(), time.process_time()
            index.search(query, limit=10, near=At(0, 150.0, 150.0))
            took[:, k] = time.perf_counter() - start, time.process_time() - busy
        waits.append(took * 1e3)
        return float(np.median(took[0]) * 1e3)

    def peer() -> float:
        took = np.empty(10)
        for k in range(len(took)):
            start = time.perf_counter()
            extract(queries[k], lower, scorer=OSA.normalized_similarity, limit=10)
            took[k] = time.perf_counter() - start
        return float(np.median(took) * 1e3)

    result = compare("search", n=n, ours=ours, peer=peer, unit="ms", higher_is_better=False, repeats=repeats)
    every = np.concatenate(waits[1:], axis=1)
    more = {
        "build_s": round(built_s, 2), "p50_ms": round(float(np.median(every[0])), 3), "p99_ms": round(float(np.percentile(every[0], 99)), 3),
        "p99_processor_ms": round(float(np.percentile(every[1], 99)), 3), "words": len(index._words),
    }  # fmt: skip
    print(json.dumps(result | more))
