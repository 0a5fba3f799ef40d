"""What search finds and in which order; typos against a slow program; other scripts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esplanade.core.errors import InvalidInput
from scenarios.venues import make_mall
from spatial.routes import At
from spatial.search import MAX_QUERY, Item, SearchIndex, venue_items
from spatial.search_text import edits_allowed, fold, words_of


def index(*names: str) -> SearchIndex:
    return SearchIndex.build([Item(str(i), name) for i, name in enumerate(names)])


def names(found: SearchIndex, text: str, **options: object) -> list[str]:
    return [hit.item.name for hit in found.search(text, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("starbuks", "Starbucks"), ("strabucks", "Starbucks"), ("sttarbucks", "Starbucks"), ("starbocks", "Starbucks"), ("stabuks", "Starbucks"),
        ("star bucks", "Starbucks"), ("airjordan", "Air Jordan"), ("air jordn", "Air Jordan"), ("fula kids", "Fila Kids"), ("H&M", "H&M"), ("hm", "H&M"), ("h m", "H&M"),
        ("macys", "Macy’s"), ("mcdonald's", "McDonalds"), ("creme brulee", "Crème Brûlée"), ("CRÈME", "Crème Brûlée"), ("strasse", "Straße 9"), ("lodz", "Łódź"),
        ("zar", "Zara"), ("7 eleven", "7-Eleven"), ("7eleven", "7-Eleven"), ("t world", "T-WORLD"),
    ],
)  # fmt: skip
def test_it_finds_what_was_meant(query: str, name: str) -> None:
    others = [
        "Stable Books",
        "Jordan Bakery",
        "Kids Corner",
        "Hamleys",
        "Macaron Bar",
        "Stratos",
        "Lodging",
        "Zorro",
        "Eleven Steps",
        "World of Tea",
    ]
    assert names(index(*others, name), query)[0] == name


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("郵政", "中華郵政公司"), ("ローソン", "ローソンATM"), ("atm", "ローソンATM"), ("йогурт", "Йогурт Бар"), ("йогрут", "Йогурт Бар"), ("الامان", "بنك الأمان"),
        ("दुकान", "किताब की दुकान"), ("카페", "서울 카페"), ("καφε", "Καφέ Αθήνα"), ("קפה", "בית קפה"), ("ร้าน", "ร้านกาแฟ"), ("กาแฟ", "ร้านกาแฟ"),
    ],
)  # fmt: skip
def test_other_scripts_are_found(query: str, name: str) -> None:
    assert names(index("Cafe", "东京书店", "Книги", "بنك", "किताब", "서울", "Βιβλία", "ספרים", "ร้าน ABC"[5:], name), query)[0] == name


def test_letters_that_are_no_marks_keep_their_signs() -> None:
    assert fold("हिन्दी") != fold("हनद")
    assert fold("が") != fold("か")
    assert words_of("naixueのcha") == ["naixue", "の", "cha"]


def test_ranking_goes_by_words_then_typos_then_exactness() -> None:
    found = index("Green Tea", "Tea House Green Garden", "Green", "Grean Tea", "Greenery")
    assert names(found, "green tea") == ["Green Tea", "Tea House Green Garden", "Grean Tea", "Green", "Greenery"][: len(names(found, "green tea"))]
    assert names(index("Zarah", "Zara Home", "Zara"), "zara") == ["Zara", "Zara Home", "Zarah"]
    hits = found.search("green tea")
    assert (hits[0].words, hits[0].typos) == (2, 0)
    assert (hits[2].words, hits[2].typos) == (2, 1)


def test_whole_words_of_names_come_before_tags_then_categories_then_beginnings() -> None:
    found = SearchIndex.build(
        [Item("c", "Alpha", category="coffee"), Item("t", "Beta", tags=("coffee",)), Item("n", "Coffee"), Item("p", "Coffeeright")]
    )
    assert [hit.item.id for hit in found.search("coffee")] == ["n", "t", "c", "p"]


def test_among_equals_open_ones_come_first_and_then_near_ones() -> None:
    found = SearchIndex.build(
        [Item("far", "Cafe", at=At(0, 90, 0)), Item("near", "Cafe", at=At(0, 10, 0)), Item("up", "Cafe", at=At(1, 0, 0)), Item("nowhere", "Cafe")]
    )
    here = At(0, 0, 0)
    assert [hit.item.id for hit in found.search("cafe", near=here)] == ["near", "up", "far", "nowhere"]
    hits = found.search("cafe", near=here, closed={"near"})
    assert [(hit.item.id, hit.open) for hit in hits] == [("up", True), ("far", True), ("nowhere", True), ("near", False)]
    assert hits[1].distance_m == pytest.approx(90)
    assert [hit.item.id for hit in found.search("cafe", limit=1, near=here)] == ["near"]


def test_kinds_narrow_the_search() -> None:
    found = SearchIndex.build([Item("s", "Shoes", "store"), Item("p", "Shoes", "product")])
    assert [hit.item.id for hit in found.search("shoes", kinds={"product"})] == ["p"]


def test_nothing_to_look_for_finds_nothing_and_too_much_is_refused() -> None:
    assert index("Zara").search(" !? ") == []
    assert SearchIndex.build([]).search("zara") == []
    assert index("Zara").search("qqqq") == []
    with pytest.raises(InvalidInput, match="characters"):
        index("Zara").search("x" * (MAX_QUERY + 1))
    with pytest.raises(InvalidInput, match="limit"):
        index("Zara").search("zara", limit=0)


def osa(a: str, b: str) -> int:
    """Optimal string alignment, as the textbook has it."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[-1][-1]


def slow_matches(query: str, word: str) -> bool:
    """The rule of the module, word by word."""
    if word.startswith(query):
        return True
    if query[0] != word[0]:
        return False
    if osa(query, word) <= edits_allowed(len(word)):
        return True
    beginnings = [word[:n] for n in range(max(4, len(query) - 1), min(12, len(query) + 1) + 1) if n < len(word)]
    return edits_allowed(len(query)) > 0 and any(osa(query, head) == 1 for head in beginnings)


WORD = st.text("abc", min_size=1, max_size=11)


@settings(max_examples=300)
@given(vocabulary=st.lists(WORD, min_size=1, max_size=12), query=WORD)
def test_one_word_matches_exactly_what_the_slow_rule_matches(vocabulary: list[str], query: str) -> None:
    found = SearchIndex.build([Item(str(i), word) for i, word in enumerate(vocabulary)])
    hits = {int(hit.item.id) for hit in found.search(query, limit=100)}
    expected = {i for i, word in enumerate(vocabulary) if slow_matches(query, word)}
    if not expected and len(query) >= 4:  # once more, with a typo more
        expected = {i for i, word in enumerate(vocabulary) if len(word) >= 4 and osa(query, word) <= edits_allowed(len(word)) + 1}
    assert hits == expected


def test_every_store_of_our_mall_is_found_by_its_name() -> None:
    venue = make_mall.make()
    found = SearchIndex.build(venue_items(venue))
    for occupant in venue.occupants:
        assert found.search(occupant.name, limit=1)[0].item.id == occupant.unit_id
    assert {hit.item.kind for hit in found.search("restroom")} == {"amenity"}
