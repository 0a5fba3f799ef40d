"""`python -m esplanade.prepare`: compile every kernel that the service, the demo's crowd and `esplanade crowd` need, once, into the cache beside the code.

Set-up runs it, so that the first start takes seconds: three shards and a crowd that compile at once take a minute. Without it everything works the same, later.
"""

from __future__ import annotations

from shapely.geometry import box

from actors.warm_up import warm_up
from scenarios.spec import find_scenario, load_scenario, venue_path
from simulation.engine import Crowd
from simulation.floor import Floor, Hop
from simulation.models import AnticipationVelocity, CollisionFreeSpeed, SocialForce
from simulation.walkers import Goal, Walkers
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
    for model in (CollisionFreeSpeed(), AnticipationVelocity(), SocialForce()):
        stairs = Hop("stairs", 1, (1.0, 1.0), 0, (1.0, 1.0), 5.0)
        walkers = Walkers(Floor.of([box(0, 0, 4, 4), box(0, 0, 4, 4)], hops=[stairs]), [Goal("east", 0, box(3, 1, 4, 3))], model=model)
        walkers.add([1.0, 1.0], [1.0, 2.0], goal=0)
        walkers.step(round(1.0 / walkers.step_s))
        walkers.overlap_m()
        walkers.leads_to([0])


if __name__ == "__main__":
    main()
