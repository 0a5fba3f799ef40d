"""What an entity remembers of its clients' commands, against the obvious: all answers in a dict, of which the highest WINDOW count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import entity
from actors.entity import WINDOW, Answers
from actors.system import Key
from esplanade.core.errors import Conflict

orders = st.lists(st.integers(0, 3 * WINDOW), unique=True, max_size=3 * WINDOW)


@given(orders | st.integers(0, 3 * WINDOW).map(lambda n: list(range(n))), st.integers(0, 3 * WINDOW), st.sampled_from((1, 2, 7, 1000)))
def test_the_newest_answers_are_found_in_whatever_order_they_came(order: list[int], asked: int, alike: int) -> None:
    answers, kept = Answers(), dict[int, bytes]()
    for sequence in order:
        answers.keep("phone", sequence, b"%d" % (sequence // alike))
        kept[sequence] = b"%d" % (sequence // alike)
        kept = dict(sorted(kept.items())[-WINDOW:])
    again = Answers()
    again.load(answers.save())
    former = Answers()  # of a snapshot from before answers were kept as runs
    former.load([("phone", kept)] if kept else [])
    assert again.save() == former.save() == answers.save()
    runs = dict(answers.save()).get("phone", [])
    assert [(sequence, reply) for first, last, reply in runs for sequence in range(first, last + 1)] == sorted(kept.items())
    for held in (answers, again, former):
        if len(kept) == WINDOW and asked < min(kept):
            with pytest.raises(Conflict, match="older than the 32 answers"):
                held.find(Key("phone", asked))
        else:
            assert held.find(Key("phone", asked)) == kept.get(asked)


def test_the_client_that_was_silent_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entity, "MAX_CLIENTS", 2)
    answers = Answers()
    for client, sequence in (("a", 1), ("b", 1), ("a", 2), ("c", 1)):
        answers.keep(client, sequence, b"x")
    assert [client for client, _ in answers.save()] == ["a", "c"]
    assert answers.find(Key("b", 1)) is None
