"""What a venue was told of people beside where they are: segments (bits) and a language, by subject number. Columns; decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

MAX_TRAITS: Final = 200_000
"""Subjects of one venue with traits."""
LANGUAGE_CHARS: Final = 8


class SavedTraits(msgspec.Struct, array_like=True, frozen=True):
    """n subjects: subject (n,) u4 ascending, segments (n,) u8, spoken (n,) u2 into `languages`."""

    subject: bytes = b""
    segments: bytes = b""
    languages: tuple[str, ...] = ()
    spoken: bytes = b""


@dataclass(slots=True, eq=False)
class Traits:
    """subject (n,) u4 ascending; segments (n,) u8; language (n,) primary tags, "" where unknown."""

    subject: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    segments: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    language: npt.NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, f"U{LANGUAGE_CHARS}"))

    def __len__(self) -> int:
        return len(self.subject)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Traits) and self.save() == other.save()

    __hash__ = None  # type: ignore[assignment]

    def known(self, subject: npt.NDArray[np.uint32]) -> int:
        """How many of these are here."""
        return int(np.isin(subject, self.subject).sum())

    def set(self, subject: npt.NDArray[np.uint32], segments: npt.NDArray[np.uint64], language: str) -> None:
        """Of these subjects (each once), from now on."""
        others = ~np.isin(self.subject, subject)
        who = np.concatenate([self.subject[others], subject.astype(np.uint32)])
        order = np.argsort(who)
        self.segments = np.concatenate([self.segments[others], segments.astype(np.uint64)])[order]
        self.language = np.concatenate([self.language[others], np.full(len(subject), language, f"U{LANGUAGE_CHARS}")])[order]
        self.subject = who[order]

    def save(self) -> SavedTraits:
        return saved_traits(self.subject, self.segments, self.language)

    @classmethod
    def load(cls, saved: SavedTraits) -> Traits:
        return cls(*columns_of(saved))


def saved_traits(subject: npt.NDArray[np.uint32], segments: npt.NDArray[np.uint64], language: npt.NDArray[np.str_]) -> SavedTraits:
    names, spoken = np.unique(language, return_inverse=True)
    return SavedTraits(
        subject.astype("<u4").tobytes(), segments.astype("<u8").tobytes(), tuple(names.tolist()), spoken.reshape(-1).astype("<u2").tobytes()
    )  # fmt: skip


def columns_of(saved: SavedTraits) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64], npt.NDArray[np.str_]]:
    names = np.array(saved.languages or ("",), f"U{LANGUAGE_CHARS}")
    subject, segments = np.frombuffer(saved.subject, "<u4").astype(np.uint32), np.frombuffer(saved.segments, "<u8").astype(np.uint64)
    return subject, segments, names[np.frombuffer(saved.spoken, "<u2")]
