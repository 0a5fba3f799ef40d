"""JuPedSim in a process of its own: takes a crowd as JSON on standard input, walks it on demand, answers in JSON. Run by `benchmarks crowd`, never by hand.

It runs under an interpreter that has `jupedsim` (the environment variable ESPLANADE_JUPEDSIM_PYTHON), which brings 1.5 GB of graphics libraries and is no
dependency of ours. Nothing of Esplanade is imported here.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def run(*, repeats: int = 5) -> None:
    """Named like a benchmark because it lies beside them."""
    raise SystemExit("jupedsim_peer: the peer of `python -m benchmarks crowd`; run that")


def main() -> None:
    import jupedsim
    from shapely.geometry import Polygon

    crowd: dict[str, Any] = json.loads(sys.stdin.readline())
    holes = [list(map(tuple, ring)) for ring in crowd["holes"]]
    room = Polygon(list(map(tuple, crowd["room"])), holes)
    simulation = jupedsim.Simulation(model=jupedsim.CollisionFreeSpeedModel(), geometry=room, dt=crowd["step_s"])
    exits = [simulation.add_exit_stage(Polygon(list(map(tuple, ring)))) for ring in crowd["exits"]]
    journeys = [simulation.add_journey(jupedsim.JourneyDescription([stage])) for stage in exits]
    ids = [
        simulation.add_agent(
            jupedsim.CollisionFreeSpeedModelAgentParameters(
                position=(x, y),
                time_gap=crowd["time_gap_s"],
                desired_speed=speed,
                radius=crowd["radius_m"],
                journey_id=journeys[goal],
                stage_id=exits[goal],
            )
        )
        for x, y, speed, goal in crowd["bodies"]
    ]
    print(json.dumps({"version": jupedsim.__version__, "bodies": len(ids)}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        left: list[tuple[int, float]] = []
        paths: list[list[list[float]]] = []
        began, busy = time.perf_counter(), time.process_time()
        for step in range(asked["steps"]):
            simulation.iterate()
            if asked.get("egress"):
                left += [(ids.index(who), simulation.elapsed_time()) for who in simulation.removed_agents()]
            if step % 10 == 0 and asked.get("paths"):
                paths.append([list(simulation.agent(ids[k]).position) for k in asked["paths"]])
            if simulation.agent_count() == 0:
                break
        took, cpu = time.perf_counter() - began, time.process_time() - busy
        print(json.dumps({"seconds": took, "cpu_s": cpu, "bodies": simulation.agent_count(), "left": left, "paths": paths}), flush=True)


if __name__ == "__main__":
    main()
