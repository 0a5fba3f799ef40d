"""`python -m esplanade.prepare`: compile every kernel that the service and the demo's crowd need, once, into the cache beside the code.

Set-up runs it, so that the first start takes seconds: three shards and a crowd that compile at once take a minute. Without it everything works the same, later.
"""

from __future__ import annotations

from actors.warm_up import warm_up
from scenarios.spec import find_scenario, load_scenario, venue_path
from simulation.engine import Crowd
from spatial.venue_files import load_venue

TICKS = 20


def main() -> None:
    warm_up()
    file = find_scenario("black_friday")
    scenario = load_scenario(file)
    venue = load_venue(venue_path(scenario, scenario_file=file))
    crowd = Crowd(venue, scenario.demand_in(venue), seed=scenario.seed)
    crowd.prefill(lambda _: None)
    for _ in range(TICKS):
        crowd.step()


if __name__ == "__main__":
    main()
