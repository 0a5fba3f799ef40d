"""Text as search sees it: folded, and cut into words. Pure functions; they know no index.

Folding: compatibility forms are unified (NFKC's), case and Latin, Greek, Cyrillic, Hebrew and Arabic marks go, letters such as ø and ł become the ones people type for them.
Vowel signs of Indic scripts and voicing marks of Japanese are letters, not marks, and stay. Apostrophes vanish ("Macy's" is "macys"), other
punctuation parts words. Scripts written without spaces (Han, Kana, Thai, Lao, Khmer, Burmese) make one word a run.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MARKS: Final = re.compile("[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u0610-\u061a\u064b-\u065f\u0670\u0640]")
LETTERS: Final = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h", "ŋ": "n", "ё": "е", "й": "и", "ى": "ي", "ة": "ه", "ک": "ك", "ی": "ي"}
)  # fmt: skip
APOSTROPHES: Final = re.compile("['’‘ʼ`´＇]")
SPACELESS: Final = (
    "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ffff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
_WORD: Final = re.compile(f"[{SPACELESS}]+|(?:(?![{SPACELESS}])[^\\W_])(?:(?![{SPACELESS}])[^\\W_]|(?<=\\w)[\u0900-\u0dff])*")
_RUN: Final = re.compile(f"[{SPACELESS}]")


def fold(text: str) -> str:
    """The text in the form in which queries and names are compared."""
    text = unicodedata.normalize("NFKD", APOSTROPHES.sub("", text)).casefold()
    return unicodedata.normalize("NFC", MARKS.sub("", text)).translate(LETTERS)


def words_of(text: str) -> list[str]:
    """The folded words of a text, in order."""
    return _WORD.findall(fold(text))


def spaceless(word: str) -> bool:
    """Whether a word is a run of a script without spaces, inside which words may begin anywhere."""
    return _RUN.match(word) is not None


def edits_allowed(letters: int) -> int:
    """Typos that an indexed word of so many letters forgives: none below 5, one from 5, two from 9 (Meilisearch's rule)."""
    return 2 if letters >= 9 else 1 if letters >= 5 else 0
