"""From readings to scans: what was heard around one instant, by transmitter.

Owns the cutting of a walk's radio readings into scans and the names of transmitters. It must never look at positions.

One scan an epoch: the phone's Wi-Fi scans give the epochs. Bluetooth readings make them where the first one does not come within WITHOUT_WIFI_S, and later where none comes for WIFI_GAP_S
(a scan of Bluetooth alone resembles no place of a map that is mostly Wi-Fi: fitting on such scans drags the fields down, and steps bridge a gap better than they do). One access point announces
several networks under neighbouring addresses; they are one transmitter (the last hexadecimal digit and the first byte are dropped) with the strongest of their readings, so that one antenna has
one vote. A phone misses for seconds what it heard a moment ago (of transmitters at -60 dBm one in five from scan to scan on site2, one in eight on site1), so what the scan before held and this one does not
is taken over from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from spatial.positioning.observations import F4, F8, I4, Walk

EPOCH_S: Final = 2.0
WITHOUT_WIFI_S: Final = 4.0
WIFI_GAP_S: Final = 20.0
FRESH_S: Final = 4.0
"""Wi-Fi readings older than this at delivery say where the walker was, not where they are."""
SAME_EPOCH_S: Final = 0.3
CARRIED_S: Final = 3.5
"""What a scan misses is taken from the one before, where that is no older than this."""


@dataclass(frozen=True, slots=True)
class Scans:
    """told_s: (n,) when scan i was complete; about_s: (n,) the mean time its readings were measured. Readings of scan i are the rows first[i]:first[i + 1] of
    transmitter (int32, index into names) and rssi_dbm."""

    told_s: F8
    about_s: F8
    first: I4
    transmitter: I4
    rssi_dbm: F4
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.told_s)

    def dense(self, index: dict[str, int], silent_dbm: float) -> F4:
        """(n, len(index)) float32 of strengths, `silent_dbm` where not heard; transmitters that are not in `index` are left out."""
        out = np.full((len(self), len(index)), silent_dbm, np.float32)
        column = np.array([index.get(name, -1) for name in self.names], np.int64)
        row = np.repeat(np.arange(len(self)), np.diff(self.first))
        at = column[self.transmitter] if len(self.transmitter) else np.zeros(0, np.int64)
        known = at >= 0
        out[row[known], at[known]] = np.maximum(self.rssi_dbm[known], silent_dbm)
        return out


def transmitter_of(source: str) -> str:
    """The transmitter's name of a source: `w:9a:40:a9:a1:86:02` -> `w:40:a9:a1:86:0`; Bluetooth sources stand for themselves."""
    return "w:" + source[5:-1] if source.startswith("w:") and len(source) == 19 else source


def scans_of(walk: Walk) -> Scans:
    """The scans of a walk, in order of `told_s`."""
    radio = walk.radio
    wifi_source = np.array([name.startswith("w:") for name in radio.names], bool)
    wifi = wifi_source[radio.source] if len(radio) else np.zeros(0, bool)
    epochs = _epochs(radio.told_s[wifi], radio.told_s[~wifi])
    names = sorted({transmitter_of(name) for name in radio.names})
    index = {name: i for i, name in enumerate(names)}
    of_source = np.array([index[transmitter_of(name)] for name in radio.names], np.int32)
    first, which, rssi, about = [0], [], [], []
    before, before_s = np.full(len(names), -np.inf, np.float32), -np.inf
    for epoch in epochs:
        near = radio.told_s <= epoch + SAME_EPOCH_S
        a = np.flatnonzero(wifi & near & (radio.heard_s >= epoch - FRESH_S))
        b = np.flatnonzero(~wifi & (radio.told_s <= epoch) & (radio.told_s > epoch - EPOCH_S))
        at, value = [], []
        if len(a):
            at.append(of_source[radio.source[a]])
            value.append(radio.rssi_dbm[a])
        if len(b):
            sums = np.bincount(of_source[radio.source[b]], radio.rssi_dbm[b], minlength=len(names))
            count = np.bincount(of_source[radio.source[b]], minlength=len(names))
            some = np.flatnonzero(count)
            at.append(some.astype(np.int32))
            value.append((sums[some] / count[some]).astype(np.float32))
        best = np.full(len(names), -np.inf, np.float32)
        if at:
            np.maximum.at(best, np.concatenate(at), np.concatenate(value))
        both = np.r_[a, b] if len(a) == 0 else a
        about.append(float(radio.heard_s[both].mean()) if len(both) else epoch)
        whole = np.where(np.isfinite(best) | (abs(about[-1] - before_s) > CARRIED_S), best, before)
        before, before_s = best, about[-1]
        some = np.flatnonzero(np.isfinite(whole))
        which.append(some.astype(np.int32))
        rssi.append(whole[some])
        first.append(first[-1] + len(some))
    return Scans(
        epochs,
        np.minimum(np.array(about, np.float64), epochs),
        np.array(first, np.int32),
        np.concatenate(which) if which else np.zeros(0, np.int32),
        np.concatenate(rssi).astype(np.float32) if rssi else np.zeros(0, np.float32),
        tuple(names),
    )


def completed_from_next(scans: Scans) -> Scans:
    """The same scans, each completed from the one after it as well, where that was measured no more than CARRIED_S later: for a survey, whose future is known. Never for a causal estimate."""
    n, wide = len(scans), len(scans.names)
    rssi = np.full((n, wide), -np.inf, np.float32)
    rssi[np.repeat(np.arange(n), np.diff(scans.first)), scans.transmitter] = scans.rssi_dbm
    near = np.abs(np.diff(scans.about_s)) <= CARRIED_S
    whole = rssi.copy()
    whole[:-1] = np.where(near[:, None] & ~np.isfinite(rssi[:-1]), rssi[1:], rssi[:-1])
    row, transmitter = np.nonzero(np.isfinite(whole))
    first = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n))]).astype(np.int32)
    return Scans(scans.told_s, scans.about_s, first, transmitter.astype(np.int32), whole[row, transmitter], scans.names)


def _epochs(wifi_s: F8, other_s: F8) -> F8:
    epochs: list[float] = []
    for t in np.unique(wifi_s):
        if not epochs or t - epochs[-1] > SAME_EPOCH_S:
            epochs.append(float(t))
        # readings within SAME_EPOCH_S of one another are one scan, told by its first
    extra: list[float] = []
    wifi_epochs = np.array([0.0, *epochs])
    last = -np.inf
    for t in np.unique(other_s):
        heard = int(np.searchsorted(wifi_epochs, t, side="right")) - 1
        if t - last >= EPOCH_S and t - wifi_epochs[max(heard, 0)] > (WIFI_GAP_S if heard > 0 else WITHOUT_WIFI_S):
            extra.append(float(t))
            last = float(t)
    return np.array(sorted(epochs + extra), np.float64)
