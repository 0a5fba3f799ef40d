"""Which subjects a feed speaks for: a set of u4 numbers in pages of bits, marked and asked by arrays."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
import numpy.typing as npt

from esplanade.core.errors import LimitExceeded

PAGE_BITS: Final = 16
REMEMBERED: Final = 16
"""Arrays of subjects known to be in the set: a tick of a crowd comes in a few frames, each of the same people as its last."""

MAX_PAGES: Final = 256
"""Pages of 65,536 subjects kept a feed and venue: 16 MiB at most."""


class SubjectSet:
    """A growing set of subjects; dense numbering is cheap, scattered numbers cost a page each."""

    def __init__(self) -> None:
        self._pages: dict[int, npt.NDArray[np.bool_]] = {}
        self._marked: deque[bytes] = deque(maxlen=REMEMBERED)

    def mark(self, subject: npt.NDArray[np.uint32]) -> None:
        """Add subjects, shape (n,). Raises LimitExceeded where they would need more than MAX_PAGES pages (none is added then)."""
        if not len(subject):
            return
        raw = subject.tobytes()
        if raw in self._marked:
            return
        low, high = int(subject.min()) >> PAGE_BITS, int(subject.max()) >> PAGE_BITS
        pages = [low] if low == high else np.unique(subject >> PAGE_BITS).tolist()
        new = [page for page in pages if page not in self._pages]
        if len(self._pages) + len(new) > MAX_PAGES:
            raise LimitExceeded(f"subjects spread over {len(self._pages) + len(new)} pages of 65,536: at most {MAX_PAGES}; number subjects densely")
        for page in pages:
            bits = self._pages.setdefault(page, np.zeros(1 << PAGE_BITS, np.bool_))
            here = subject if len(pages) == 1 else subject[(subject >> PAGE_BITS) == page]
            bits[here & 0xFFFF] = True
        self._marked.append(raw)

    def __contains__(self, subject: int) -> bool:
        page = self._pages.get(subject >> PAGE_BITS)
        return page is not None and bool(page[subject & 0xFFFF])

    def mask(self, subject: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
        """Which of the subjects, shape (n,), are in the set."""
        out = np.zeros(len(subject), np.bool_)
        if not len(subject) or not self._pages:
            return out
        page_of = subject >> PAGE_BITS
        for page in np.unique(page_of).tolist():
            bits = self._pages.get(page)
            if bits is not None:
                here = page_of == page
                out[here] = bits[subject[here] & 0xFFFF]
        return out
