# mypy: allow-untyped-decorators
"""Compiled kernels of the position host: rows by subject, crossings of fences, dwell, staleness, pushes, pseudonyms.

Owns no state and validates nothing; `actors.crowd_state`, `actors.push_rules` and `actors.positions` do. No kernel reads a clock.
Letters: r rows (a subject each, in order of first sight), n rows of one call, w fences of a row at most, c circles of a row at most, f fences, o offers.
Lists of fences are ascending and padded with -1.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

F4 = npt.NDArray[np.float32]
U1 = npt.NDArray[np.uint8]
U4 = npt.NDArray[np.uint32]
U8 = npt.NDArray[np.uint64]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
B1 = npt.NDArray[np.bool_]


@numba.njit(cache=True)
def _mix(word: Any) -> Any:
    """Finaliser of SplitMix64 (Steele et al. 2014)."""
    x = np.uint64(word)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@numba.njit(cache=True)
def rows_of(slots: I4, known: U4, count: int, subject: U4, row: I4) -> int:
    """row (n,) of each subject, entering those not known; returns the count afterwards. `known` and `slots` must have room for n more."""
    mask = np.uint64(len(slots) - 1)
    for i in range(len(subject)):
        at = _mix(subject[i]) & mask
        while slots[at] >= 0 and known[slots[at]] != subject[i]:
            at = (at + np.uint64(1)) & mask
        if slots[at] < 0:
            slots[at] = count
            known[count] = subject[i]
            count += 1
        row[i] = slots[at]
    return count


@numba.njit(cache=True)
def rehash_rows(slots: I4, known: U4, count: int) -> None:
    slots[:] = -1
    mask = np.uint64(len(slots) - 1)
    for i in range(count):
        at = _mix(known[i]) & mask
        while slots[at] >= 0:
            at = (at + np.uint64(1)) & mask
        slots[at] = i


@numba.njit(cache=True)
def crossings(row: I4, now: I4, member: I4, out_i: I4, out_fence: I4, out_entered: U1) -> int:
    """Differences between the fences of n rows before, member (r, w), and now (n, w): out_i (index into `row`), fence, 1 entered or 0 left; returns how many.

    Ordered by (i, fence). The outputs need room for 2 n w.
    """
    k = 0
    width = now.shape[1]
    for i in range(len(row)):
        r = row[i]
        a = 0
        b = 0
        while True:
            before = member[r, a] if a < width else -1
            after = now[i, b] if b < width else -1
            if before < 0 and after < 0:
                break
            if before == after:
                a += 1
                b += 1
            elif after < 0 or (before >= 0 and before < after):
                out_i[k] = i
                out_fence[k] = before
                out_entered[k] = 0
                k += 1
                a += 1
            else:
                out_i[k] = i
                out_fence[k] = after
                out_entered[k] = 1
                k += 1
                b += 1
    return k


@numba.njit(cache=True)
def in_outline(member: I4, r: int, outline_base: int) -> bool:
    """Whether a row is in a level's outline: those are the last fences, so look at the last of the list."""
    last = -1
    for w in range(member.shape[1]):
        if member[r, w] < 0:
            break
        last = member[r, w]
    return last >= outline_base


@numba.njit(cache=True)
def inside_venue(row: I4, member: I4, outline_base: int, out: U1) -> None:
    for i in range(len(row)):
        out[i] = 1 if in_outline(member, row[i], outline_base) else 0


@numba.njit(cache=True)
def observe(
    row: I4, level: U1, x_m: F4, y_m: F4, tick: I8, left: int, at_level: U1, at_x: F4, at_y: F4, last: I8, present: B1, seen: B1, first: U1,
) -> None:  # fmt: skip
    """Newest positions of n rows (tick: (n,), or (1,) of all). first (n,): 1 where someone is here who was never seen."""
    many = len(tick) > 1
    for i in range(len(row)):
        r = row[i]
        here = level[i] != left
        first[i] = 1 if here and not seen[r] else 0
        at_level[r] = level[i]
        at_x[r] = x_m[i]
        at_y[r] = y_m[i]
        last[r] = tick[i] if many else tick[0]
        present[r] = here
        seen[r] = seen[r] or here


@numba.njit(cache=True)
def cross(
    row: I4, fence: I4, entered: U1, tick: int, outline_base: int, member: I4, since: I8,
    inside: I8, entries: I8, exits: I8, stayed: I8, venue: I8, indoors: U1,
) -> int:  # fmt: skip
    """Apply k crossings, those of a row adjacent. since (r, w): tick of entry; inside, entries, exits, stayed (f,); venue (2,): entries, exits; indoors (r,): in the venue.

    Returns -1, or the index of a crossing that does not fit what was: a second entry, an exit of one not inside, no room.
    """
    width = member.shape[1]
    k = 0
    while k < len(row):
        r = row[k]
        was_in = in_outline(member, r, outline_base)
        # Exits first, so that there is room for the entries.
        first = k
        while k < len(row) and row[k] == r:
            if entered[k] == 0:
                at = -1
                for w in range(width):
                    if member[r, w] == fence[k]:
                        at = w
                        break
                if at < 0:
                    return k
                stayed[fence[k]] += tick - since[r, at]
                exits[fence[k]] += 1
                inside[fence[k]] -= 1
                for w in range(at, width - 1):
                    member[r, w] = member[r, w + 1]
                    since[r, w] = since[r, w + 1]
                member[r, width - 1] = -1
            k += 1
        for j in range(first, k):
            if entered[j] == 1:
                at = 0
                while at < width and member[r, at] >= 0 and member[r, at] < fence[j]:
                    at += 1
                if member[r, width - 1] >= 0 or at == width or member[r, at] == fence[j]:
                    return j
                for w in range(width - 1, at, -1):
                    member[r, w] = member[r, w - 1]
                    since[r, w] = since[r, w - 1]
                member[r, at] = fence[j]
                since[r, at] = tick
                entries[fence[j]] += 1
                inside[fence[j]] += 1
        is_in = in_outline(member, r, outline_base)
        indoors[r] = 1 if is_in else 0
        if is_in and not was_in:
            venue[0] += 1
        if was_in and not is_in:
            venue[1] += 1
    return -1


@numba.njit(cache=True)
def dwelling(count: int, member: I4, since: I8, entered_tick: int, outline_base: int, out_row: I4, out_fence: I4) -> int:
    """Rows that are in a unit or zone since exactly `entered_tick`; returns how many there are, of which as many as fit are written."""
    k = 0
    for r in range(count):
        for w in range(member.shape[1]):
            fence = member[r, w]
            if fence < 0 or fence >= outline_base:
                break
            if since[r, w] == entered_tick:
                if k < len(out_row):
                    out_row[k] = r
                    out_fence[k] = fence
                k += 1
    return k


@numba.njit(cache=True)
def gone_stale(count: int, present: B1, last: I8, at_or_before: int, out_row: I4) -> int:
    """Rows still present whose last observation is at or before a tick."""
    k = 0
    for r in range(count):
        if present[r] and last[r] <= at_or_before:
            out_row[k] = r
            k += 1
    return k


@numba.njit(cache=True)
def _push_slot(slots: I4, keys: U8, wanted: Any) -> Any:
    mask = np.uint64(len(slots) - 1)
    at = _mix(wanted) & mask
    while slots[at] >= 0 and keys[slots[at]] != wanted:
        at = (at + np.uint64(1)) & mask
    return np.int64(at)


@numba.njit(cache=True)
def rehash_pushes(slots: I4, keys: U8, count: int) -> None:
    slots[:] = -1
    for i in range(count):
        slots[_push_slot(slots, keys, keys[i])] = i


@numba.njit(cache=True)
def _allowed(tick: int, offer: int, r: int, cap: I8, cooldown: I8, slots: I4, keys: U8, times: I8, newest: I8) -> bool:
    found = slots[_push_slot(slots, keys, np.uint64(offer) << np.uint64(32) | np.uint64(r))]
    return bool(found < 0 or (times[found] < cap[offer] and tick - newest[found] >= cooldown[offer]))


@numba.njit(cache=True)
def pushes_to_moved(
    tick: int, row: I4, first_seen: U1, was_inside: U1, is_inside: U1, circles_before: I4, circles_now: I4,
    on: B1, was_on: B1, inside_offers: I4, everyone_offers: I4, cap: I8, cooldown: I8,
    slots: I4, keys: U8, times: I8, newest: I8, out_offer: I4, out_row: I4,
) -> int:  # fmt: skip
    """Pushes to n rows that were observed or went stale at `tick`, of offers that were on at the close before; returns how many (written as they fit).

    circles_before, circles_now: (n, c) offers within whose radius the row was and is; on, was_on: (o,); *_offers: offers of that audience on both times.
    """
    k = 0
    width = circles_now.shape[1]
    for i in range(len(row)):
        r = row[i]
        for c in range(width):
            offer = circles_now[i, c]
            if offer < 0:
                break
            if not on[offer] or not was_on[offer]:
                continue
            before = False
            for b in range(circles_before.shape[1]):
                if circles_before[i, b] == offer:
                    before = True
                    break
            if not before and _allowed(tick, offer, r, cap, cooldown, slots, keys, times, newest):
                if k < len(out_row):
                    out_offer[k] = offer
                    out_row[k] = r
                k += 1
        if is_inside[i] == 1 and was_inside[i] == 0:
            for offer in inside_offers:
                if _allowed(tick, offer, r, cap, cooldown, slots, keys, times, newest):
                    if k < len(out_row):
                        out_offer[k] = offer
                        out_row[k] = r
                    k += 1
        if first_seen[i] == 1:
            for offer in everyone_offers:
                if _allowed(tick, offer, r, cap, cooldown, slots, keys, times, newest):
                    if k < len(out_row):
                        out_offer[k] = offer
                        out_row[k] = r
                    k += 1
    return k


@numba.njit(cache=True)
def pushes_of_started(
    tick: int, count: int, circles: I4, seen: B1, member: I4, outline_base: int,
    started: B1, inside_offers: I4, everyone_offers: I4, cap: I8, cooldown: I8,
    slots: I4, keys: U8, times: I8, newest: I8, out_offer: I4, out_row: I4, k: int,
) -> int:  # fmt: skip
    """Pushes, after the k so far, of offers that are on at `tick` and were not at the close before, to all rows eligible now. started: (o,); *_offers: of these."""
    for r in range(count):
        for c in range(circles.shape[1]):
            offer = circles[r, c]
            if offer < 0:
                break
            if started[offer] and _allowed(tick, offer, r, cap, cooldown, slots, keys, times, newest):
                if k < len(out_row):
                    out_offer[k] = offer
                    out_row[k] = r
                k += 1
        if len(inside_offers) > 0 and in_outline(member, r, outline_base):
            for offer in inside_offers:
                if _allowed(tick, offer, r, cap, cooldown, slots, keys, times, newest):
                    if k < len(out_row):
                        out_offer[k] = offer
                        out_row[k] = r
                    k += 1
        if seen[r]:
            for offer in everyone_offers:
                if _allowed(tick, offer, r, cap, cooldown, slots, keys, times, newest):
                    if k < len(out_row):
                        out_offer[k] = offer
                        out_row[k] = r
                    k += 1
    return k


@numba.njit(cache=True)
def record_pushes(offer: I4, row: I4, tick: int, slots: I4, keys: U8, times: I8, newest: I8, count: int) -> int:
    """Count n pushes; the tables must have room. Returns the count of (offer, row) pairs afterwards."""
    for i in range(len(row)):
        key = np.uint64(offer[i]) << np.uint64(32) | np.uint64(row[i])
        at = _push_slot(slots, keys, key)
        if slots[at] < 0:
            slots[at] = count
            keys[count] = key
            times[count] = 0
            count += 1
        times[slots[at]] += 1
        newest[slots[at]] = tick
    return count


@numba.njit(cache=True)
def pseudonyms(subject: U4, key: U8, out: U4) -> None:
    """A keyed permutation of 32 bits: eight Feistel rounds (Luby and Rackoff 1988), the round function SplitMix64 under round keys. key: (8,)."""
    for i in range(len(subject)):
        left = np.uint64(subject[i] >> np.uint32(16))
        right = np.uint64(subject[i] & np.uint32(0xFFFF))
        for k in range(8):
            left, right = right, left ^ (_mix(right ^ key[k]) >> np.uint64(48))
        out[i] = np.uint32(left << np.uint64(16) | right)
