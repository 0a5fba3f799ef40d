"""Families and friends who stay together while they walk.

Owns the pull between members of a group: Moussaïd, Perozo, Garnier, Helbing, Theraulaz 2010, "The walking behaviour of pedestrian social groups and its impact on
crowd dynamics" (PLoS ONE 5(4): e10047), equations 3 to 5: who would have to turn the head far to see the others slows (beta1), who is further from the
group's centre than half of its size is drawn to it (beta2). Their repulsion between members is left to the operational model, which keeps bodies apart.
The forces act over the relaxation time, as a change of the velocity that a member wishes for: what they are in the social force model, and a translation in the others.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

GAZE: Final = 4.0
"""beta1, 1/s."""
DRAW_MPS2: Final = 3.0
"""beta2, m/s2."""
RELAX_S: Final = 0.5
SEEN_RAD: Final = np.pi / 2
"""Members look up to this far to each side without turning the head."""
FASTEST: Final = 1.3
SLOWEST: Final = 0.1
ABSENT_SHARE: Final = 0.4
"""So much of their speed do members walk at while others of the group are on another level or in a connector."""


def wished(group: I8, level: npt.NDArray[np.uint8], x: F8, y: F8, hx: F8, hy: F8, vx: F8, vy: F8, speed: F8, size: I8) -> tuple[F8, F8, F8]:
    """(lean_x, lean_y, speed) of m members who walk: what is added to the unit vector of their way, and how fast they wish to be.

    group: (m,) 0 to g - 1. x, y: places, m; hx, hy: unit vectors of the way; vx, vy: velocities, m/s; speed: desired alone, m/s; size: (g,) members in all, those
    who are elsewhere too.
    """
    m = len(group)
    # Those on one level see each other: the key is (group, level).
    keys, where, here = np.unique(group * 256 + level, return_inverse=True, return_counts=True)
    cx, cy = np.bincount(where, x, len(keys)), np.bincount(where, y, len(keys))
    others = np.maximum(here[where] - 1, 1)
    alone = here[where] < 2
    # The gaze is at the centre of the others, the draw to the centre of all.
    ox, oy = (cx[where] - x) / others - x, (cy[where] - y) / others - y
    ax, ay = cx[where] / here[where] - x, cy[where] / here[where] - y
    off = np.hypot(ax, ay)
    turn = np.abs(np.angle((ox + 1j * oy) * (hx - 1j * hy)))
    turn = np.where(alone, 0.0, np.maximum(0.0, turn - SEEN_RAD))
    far = ~alone & (off > 0.5 * (here[where] - 1))
    pull = np.where(far, DRAW_MPS2 * RELAX_S / np.maximum(off, 1e-9), 0.0)
    wx = speed * hx + pull * ax - RELAX_S * GAZE * turn * vx
    wy = speed * hy + pull * ay - RELAX_S * GAZE * turn * vy
    absent = here[where] < size[group]
    pace = np.hypot(wx, wy)
    new_speed = np.clip(pace, SLOWEST, FASTEST * speed)
    new_speed = np.where(absent, np.minimum(new_speed, np.maximum(SLOWEST, ABSENT_SHARE * speed)), new_speed)
    lean_x, lean_y = np.zeros(m), np.zeros(m)
    moves = pace > 1e-6
    # So slow that the wish turns round: stand and wait rather than walk back.
    back = moves & (wx * hx + wy * hy < 0.0)
    new_speed = np.where(back, SLOWEST, new_speed)
    go = moves & ~back
    lean_x[go], lean_y[go] = wx[go] / pace[go] - hx[go], wy[go] / pace[go] - hy[go]
    return lean_x, lean_y, new_speed
