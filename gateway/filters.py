"""What a reader wants of a topic: tests over the fields of its frames, all of which must hold. Data, not a language: nothing is parsed or run. Pure.

The same for subscriptions, event streams and webhooks. A field is a path of names (`offer.unit_id`); only declared fields of frames and keys of their maps can be named.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from esplanade.core.errors import InvalidInput

MAX_TESTS: Final = 8
MAX_VALUES: Final = 64
MAX_PATH: Final = 3

Scalar = Annotated[str, msgspec.Meta(max_length=128)] | int | float | bool | None


class Test(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One question about `field`: exactly one of `equals` (a value), `in` (any of them), or a range (`at_least` counted in, `below` not; either or both). `not` turns it round.

    A field that is not there, or no single value, passes no test, turned round or not. Text and numbers and truth are never equal to each other.
    """

    field: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    equals: Scalar | msgspec.UnsetType = msgspec.UNSET
    one_of: Annotated[tuple[Scalar, ...], msgspec.Meta(min_length=1, max_length=MAX_VALUES)] | None = msgspec.field(default=None, name="in")
    at_least: float | None = None
    below: float | None = None
    turned: bool = msgspec.field(default=False, name="not")

    __test__ = False  # pytest takes every class of this name for its own

    def passes(self, frame: msgspec.Struct) -> bool:
        value = _value(frame, self.field)
        if value is _NOTHING:
            return False
        return self._holds(value) is not self.turned

    def _holds(self, value: Any) -> bool:
        if self.equals is not msgspec.UNSET:
            return _same(value, self.equals)
        if self.one_of is not None:
            return any(_same(value, one) for one in self.one_of)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (self.at_least is None or value >= self.at_least) and (self.below is None or value < self.below)


Where = Annotated[tuple[Test, ...], msgspec.Meta(min_length=1, max_length=MAX_TESTS)]


def matches(where: tuple[Test, ...] | None, frame: msgspec.Struct) -> bool:
    return where is None or all(test.passes(frame) for test in where)


def check_where(where: tuple[Test, ...], frames: tuple[type, ...]) -> None:
    """Raises InvalidInput for a test that asks nothing, two things at once, or about what none of these frames has."""
    for test in where:
        ranged = test.at_least is not None or test.below is not None
        asked = (test.equals is not msgspec.UNSET) + (test.one_of is not None) + ranged
        if asked != 1:
            raise InvalidInput(f"test of field {test.field!r} asks {asked} things: give one of equals, in, or a range (at_least, below)")
        first, *rest = test.field.split(".")
        if len(rest) >= MAX_PATH:
            raise InvalidInput(f"field {test.field!r} has {len(rest) + 1} parts: at most {MAX_PATH}")
        known = sorted({name for kind in frames for name in kind.__struct_fields__})  # type: ignore[attr-defined]
        if first not in known:
            raise InvalidInput(f"field {test.field!r}: what is published there has {', '.join(known)}")


_NOTHING: Final = object()


def _value(frame: Any, path: str) -> Any:
    """The single value at a path, or _NOTHING."""
    held = frame
    while path:
        if isinstance(held, dict):  # keys may hold dots
            held, path = held.get(path, _NOTHING), ""
        else:
            name, _, path = path.partition(".")
            if not isinstance(held, msgspec.Struct) or name not in held.__struct_fields__:
                return _NOTHING
            held = getattr(held, name)
    return held if held is None or isinstance(held, str | int | float | bool) else _NOTHING


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return bool(value == wanted)
