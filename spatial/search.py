"""Search by name, product, tag and category, forgiving typos; built for one venue, quick at 100,000 names.

Owns the index and the ranking. It knows no venue's geometry beyond a point an item, no opening hours (what is closed is given) and no network.

Words. A query word matches an indexed word that is equal, that it begins (the last word only, and runs of scripts without spaces), or that is within as many typos as
the indexed word's length forgives (`edits_allowed`): a typo is one letter put in, left out, replaced, or swapped with its neighbour (optimal string alignment, by
`rapidfuzz`). The first letter must be right. A query word of four letters or more that matches nothing at all so is looked up once more with one typo more and any first
letter. Names also answer to their words written together, two by two and all, and so do queries: "air jordan" and "airjordan" meet.

Candidates for typos are the words of the same first letter and nearly the same length that share enough letters, and distances to them are computed in one call; no
deletion neighbourhood is kept, which for 100,000 names would take some hundred megabytes for the same few milliseconds.

Ranking, in this order: query words matched; typos; whole words before beginnings; likeness of a mistyped word as a whole (Jaro and Winkler's, which values its
beginning); names before tags before categories, names without other words first; open before closed; distance to me; popularity; the order given.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import OSA, JaroWinkler
from rapidfuzz.process import cdist

from esplanade.core.errors import InvalidInput, LimitExceeded
from spatial.plan import anchors
from spatial.routes import At
from spatial.search_text import edits_allowed, spaceless, words_of
from spatial.venue import Venue

Kind = Literal["store", "product", "category", "amenity"]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]

MAX_ITEMS: Final = 500_000
MAX_QUERY: Final = 200
"""Characters of a query; more is refused."""

MAX_WORDS: Final = 8
"""Words of a query that count, from the first."""

MAX_HITS: Final = 1_000
MAX_LETTERS: Final = 48
"""Letters of an indexed word that count; longer words are cut."""

SUFFIXES: Final = 24
"""Places in a run of a spaceless script at which a query may begin to match."""

STOREY_M: Final = 40.0
"""What a level up or down counts as distance, when distances are compared."""

_FIELDS: Final = {"name": 0, "tag": 4, "category": 8}
_INSIDE: Final = 2  # at a later letter of a run without spaces
_STEP: Final = 16  # fields and places in a run lie below
_UNLIKE: Final = 1 << 8
_BEGINS: Final = 1 << 15
_TYPO: Final = 1 << 19
_MISSED: Final = 1 << 24
# A cost is a sum of these over the query's words, most weighty last; of MAX_WORDS words none carries into the next: unlikeness is 0 to 15, typos 0 to 3 a word.


@dataclass(frozen=True, slots=True)
class Item:
    """Something to find. `id` is the caller's (unit, product, amenity); `at` is where it is, None for nowhere in particular."""

    id: str
    name: str
    kind: Kind = "store"
    category: str = ""
    tags: tuple[str, ...] = ()
    at: At | None = None
    popularity: float = 1.0


@dataclass(frozen=True, slots=True)
class Hit:
    """An item found: query words matched, typos forgiven in them (a beginning of a category or tag counts as one), metres to it (None where nobody asked), and
    whether it is open (None likewise)."""

    item: Item
    words: int
    typos: int
    distance_m: float | None
    open: bool | None


def venue_items(venue: Venue) -> list[Item]:
    """The venue's stores, amenities and named rooms, as items to index. A store's tags are its occupant's."""
    place = {occupant.unit_id: At(*at) for occupant, at in zip(venue.occupants, anchors(venue, [o.unit_id for o in venue.occupants]), strict=True)}
    items = [Item(o.unit_id, o.name, "store", o.category, o.tags, place[o.unit_id], o.popularity) for o in venue.occupants]
    index = {level.id: i for i, level in enumerate(venue.levels)}
    items += [Item(a.id, a.name or a.category, "amenity", a.category, (), At(index[a.level_id], *a.point)) for a in venue.amenities]
    items += [
        Item(u.id, u.name or u.category.replace(".", " "), "amenity", u.category.split(".")[0], (), At(*anchors(venue, [u.id])[0]))
        for u in venue.units
        if u.category.startswith("restroom")
    ]
    return items


class SearchIndex:
    """An immutable index over items. Make it with `SearchIndex.build`; ask with `search`."""

    def __init__(self, items: tuple[Item, ...], postings: dict[str, set[tuple[int, int]]]) -> None:
        self.items = items
        self._words = sorted(postings)
        rows = [(entry, cost) for word in self._words for entry, cost in sorted(postings[word])]
        table = np.array(rows, np.int32).reshape(-1, 2)
        self._entry, self._cost = np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1])
        self._start = np.cumsum([0, *(len(postings[word]) for word in self._words)])
        self._whole = _Buckets(((word, i, i + 1) for i, word in enumerate(self._words) if len(word) >= 5), first_letter=True)
        self._loose = _Buckets(((word, i, i + 1) for i, word in enumerate(self._words) if len(word) >= 4), first_letter=False)
        self._begin = _Buckets(_beginnings(self._words), first_letter=True)
        self._name_words = np.array([min(len(words_of(item.name)), 60) for item in items], np.int32)
        self._popular = np.array([item.popularity for item in items])
        self._row = {item.id: i for i, item in reversed(list(enumerate(items)))}
        nowhere = At(-1, np.nan, np.nan)
        place = [item.at or nowhere for item in items]
        self._level = np.array([at.level for at in place], np.int64)
        self._xy = np.array([(at.x_m, at.y_m) for at in place], np.float64).reshape(-1, 2)

    @classmethod
    def build(cls, items: Sequence[Item]) -> SearchIndex:
        """An index of the items. Raises LimitExceeded above MAX_ITEMS."""
        if len(items) > MAX_ITEMS:
            raise LimitExceeded(f"search index of {len(items)} items; at most {MAX_ITEMS}")
        postings: dict[str, set[tuple[int, int]]] = defaultdict(set)
        for entry, item in enumerate(items):
            fields = [("name", item.name), ("category", item.category.replace("_", " ")), *(("tag", tag.replace("_", " ")) for tag in item.tags)]
            for field, text in fields:
                words = [word[:MAX_LETTERS] for word in words_of(text)]
                cost = _FIELDS[field]
                for word in _together(words) | set(words):
                    postings[word].add((entry, cost))
                for word in words:
                    if spaceless(word):
                        for at in range(1, min(len(word), SUFFIXES)):
                            postings[word[at:]].add((entry, cost + _INSIDE))
        return cls(tuple(items), postings)

    def search(
        self, text: str, *, limit: int = 20, near: At | None = None, closed: Set[str] | None = None, kinds: Set[Kind] | None = None
    ) -> list[Hit]:
        """At most `limit` items that match at least one word, the best first (see the module's ranking).

        `closed`: ids of items closed now; they come after open ones that match as well. `near`: where I am. Raises InvalidInput for a text over MAX_QUERY
        characters, a limit outside 1 to MAX_HITS, a point not finite. A text without a letter or digit finds nothing.
        """
        if len(text) > MAX_QUERY or not 1 <= limit <= MAX_HITS:
            raise InvalidInput(f"search of {len(text)} characters, limit {limit}: at most {MAX_QUERY} characters, limit 1 to {MAX_HITS}")
        if near is not None and not np.isfinite([near.x_m, near.y_m]).all():
            raise InvalidInput(f"search near ({near.x_m}, {near.y_m}): coordinates must be finite metres")
        words = [word[:MAX_LETTERS] for word in words_of(text)[:MAX_WORDS]]
        if not words or not self.items:
            return []
        total = self._total(words)
        if kinds is not None:
            total[[item.kind not in kinds for item in self.items]] = len(words) * _MISSED
        found = np.flatnonzero(total < len(words) * _MISSED)
        if len(found) > limit:
            worst = np.partition(total[found], limit - 1)[limit - 1]
            found = found[total[found] <= worst]
        away = self._away(found, near)
        shut = np.zeros(len(found), np.bool_)
        if closed is not None:
            rows = np.array([self._row[name] for name in closed if name in self._row], np.int64)
            shut = np.isin(found, rows)
        order = np.lexsort((found, -self._popular[found], np.nan_to_num(away, nan=np.inf), shut, total[found]))[:limit]
        return [
            Hit(
                self.items[i], len(words) - int(total[i]) // _MISSED, int(total[i]) % _MISSED // _TYPO,
                None if near is None or np.isnan(far) else float(far), None if closed is None else not off,
            )
            for i, far, off in zip(found[order].tolist(), away[order].tolist(), shut[order].tolist(), strict=True)
        ]  # fmt: skip

    def _away(self, rows: I8, near: At | None) -> npt.NDArray[np.float64]:
        if near is None:
            return np.full(len(rows), np.nan)
        flat = np.hypot(*(self._xy[rows] - [near.x_m, near.y_m]).T)
        return np.asarray(flat + STOREY_M * np.abs(self._level[rows] - near.level))

    def _total(self, words: list[str]) -> I4:
        """(items,) cost: words missed, then typos, then exactness. Words may match singly, two together, or all together."""
        n = len(words)
        last = n - 1
        miss = np.int32(_MISSED)
        single = [self._match(word, i == last) for i, word in enumerate(words)]
        best = [np.zeros(len(self.items), np.int32), single[0]]
        for i in range(1, n):
            now = best[i] + single[i]
            pair = self._match(words[i - 1] + words[i], i == last)
            np.minimum(now, np.where(pair < miss, best[i - 1] + pair, now), out=now)
            best.append(now)
        total = best[n]
        if n > 2:
            whole = self._match("".join(words), True)
            np.minimum(total, np.where(whole < miss, whole, total), out=total)
        left = np.clip(self._name_words - n, 0, 15)
        return np.asarray(np.where(total < n * miss, total + left, total), np.int32)

    def _match(self, word: str, begins: bool) -> I4:
        """(items,) cost of the best indexed word for a query word, _MISSED where there is none."""
        out = np.full(len(self.items), _MISSED, np.int32)
        groups: list[tuple[int, int, int]] = []  # cost, and the range of words
        low = bisect_left(self._words, word)
        exact = low < len(self._words) and self._words[low] == word
        if exact:
            groups.append((0, low, low + 1))
        begins = begins or spaceless(word)
        if begins:
            high = bisect_left(self._words, word + "\U0010ffff")
            if high > low + exact:
                groups.append((_BEGINS, low + exact, high))
        groups += self._typos(word, begins)
        if not groups and len(word) >= 4:
            for length in range(max(len(word) - 3, 4), len(word) + 4):
                groups += self._loose.near(word, length, edits_allowed(length) + 1, 0)
        for cost, first, end in groups:
            span = slice(self._start[first], self._start[end])
            value = self._cost[span] + np.int32(cost)
            if cost == _BEGINS:  # a beginning of a mere category or tag is worth no more than a name with a typo
                value[value % _STEP >= _FIELDS["tag"]] += _TYPO
            np.minimum.at(out, self._entry[span], value)
        return out

    def _typos(self, word: str, begins: bool) -> list[tuple[int, int, int]]:
        """(cost, first, end) of the ranges of indexed words within their typos of `word`, the equal one left out."""
        groups: list[tuple[int, int, int]] = []
        n = len(word)
        for length in range(max(n - 2, 5), n + 3):
            allowed = edits_allowed(length)
            if abs(length - n) <= allowed:
                groups += self._whole.near(word, length, allowed, 0)
        if begins and edits_allowed(n):
            for length in range(n - 1, n + 2):
                # One typo at most in what is not yet typed to the end: with two, half the index would begin alike.
                groups += self._begin.near(word, length, 1, _BEGINS)
        return groups


class _Buckets:
    """Words, or beginnings of words, by length and, if asked, first letter: with each the range of indexed words that it stands for, and the set of its letters."""

    def __init__(self, entries: Iterable[tuple[str, int, int]], *, first_letter: bool) -> None:
        self._first_letter = first_letter
        rows: dict[tuple[str, int], tuple[list[str], list[tuple[int, int]]]] = defaultdict(lambda: ([], []))
        for word, first, end in entries:
            words, ranges = rows[self._key(word), len(word)]
            words.append(word)
            ranges.append((first, end))
        self._rows = {
            key: (words, np.array(ranges, np.int64), np.array([_letters(word) for word in words], np.uint64)) for key, (words, ranges) in rows.items()
        }

    def _key(self, word: str) -> str:
        return word[0] if self._first_letter else ""

    def near(self, word: str, length: int, typos: int, cost: int) -> list[tuple[int, int, int]]:
        """(cost and typos, first, end) of the words of that length within 1 to `typos` typos. Each typo brings at most one letter and takes one away, so the
        sets of letters sort out nearly all before any distance is computed."""
        row = self._rows.get((self._key(word), length))
        if row is None:
            return []
        words, ranges, letters = row
        mine = np.uint64(_letters(word))
        near = np.flatnonzero((np.bitwise_count(letters & ~mine) <= typos) & (np.bitwise_count(mine & ~letters) <= typos))
        if not len(near):
            return []
        names = [words[k] for k in near.tolist()]
        far = cdist([word], names, scorer=OSA.distance, score_cutoff=typos, dtype=np.uint8)[0]
        hit = np.flatnonzero((far > 0) & (far <= typos))
        if not len(hit):
            return []
        alike = cdist([word], [names[k] for k in hit.tolist()], scorer=JaroWinkler.similarity, dtype=np.float32)[0]
        unlike = np.rint((1 - alike) * 30).clip(0, 15).astype(np.int64)
        value = cost + far[hit].astype(np.int64) * _TYPO + unlike * _UNLIKE
        return [(at, first, end) for at, (first, end) in zip(value.tolist(), ranges[near[hit]].tolist(), strict=True)]


def _letters(word: str) -> int:
    """The set of a word's letters in 64 bits; letters may share a bit, which lets a few more words through."""
    found = 0
    for letter in word:
        found |= 1 << (ord(letter) & 63)
    return found


def _together(words: list[str]) -> set[str]:
    """Neighbouring words written as one, two by two and all of them."""
    if len(words) < 2:
        return set()
    pairs = {a + b for a, b in pairwise(words)}
    return {word[:MAX_LETTERS] for word in pairs | {"".join(words)}}


def _beginnings(words: list[str]) -> Iterator[tuple[str, int, int]]:
    """The distinct beginnings of 4 to 12 letters of longer words, with the range of words that begin so (words are sorted)."""
    for length in range(4, 13):
        first = 0
        while first < len(words):
            if len(words[first]) <= length:
                first += 1
                continue
            head, end = words[first][:length], first + 1
            while end < len(words) and words[end].startswith(head):
                end += 1
            yield head, first, end
            first = end
