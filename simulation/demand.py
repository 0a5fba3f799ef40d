"""What a scenario asks of the crowd: who comes when, where they go, what they buy, what pulls them.

Owns the demand's parameters (a closed set of frozen records, validated by `scenarios.spec`); the engine in `simulation.engine` reads them.
"""

from __future__ import annotations

import msgspec


class FlashPull(msgspec.Struct, frozen=True, kw_only=True):
    """From `tick` on, agents inside re-plan to the unit with probability `pull * exp(-d / decay_m)`, d their walking distance at that tick."""

    tick: int
    unit_id: str
    pull: float = 0.3
    decay_m: float = 120.0
    until_tick: int


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """Demand of one run.

    hourly: expected arrivals in each hour of the venue's day, from `open_hour`; a non-homogeneous Poisson process, linear within the hour.
    start_hour: venue time at tick 0. population_cap: arrivals beyond it are turned away and counted.
    prefill: people inside at tick 0, placed by fast-forward (steady state of the itineraries, then `settle_s` simulated seconds).
    hold_population: replace every leaver by an arrival, so that the number inside stays at `prefill` (full-load runs).
    stops: mean number of shops in an itinerary; stay_s: (median, sigma) of the log-normal time in a shop; buy_probability: at the end of a stay in a unit with a till;
    amount_minor: (median, sigma) of the log-normal price; speed_mps: (mean, sd) of the desired speed (Weidmann 1993: 1.34, 0.26), clipped to 0.5-2.0.
    """

    open_hour: float = 8.0
    hourly: tuple[float, ...]
    start_hour: float = 8.0
    population_cap: int = 100_000
    prefill: int = 0
    hold_population: bool = False
    settle_s: float = 60.0
    stops: float = 4.0
    stay_s: tuple[float, float] = (300.0, 0.7)
    buy_probability: float = 0.35
    amount_minor: tuple[float, float] = (2400.0, 0.8)
    speed_mps: tuple[float, float] = (1.34, 0.26)
    pulls: tuple[FlashPull, ...] = ()
