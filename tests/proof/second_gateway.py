"""One more gateway beside a running `esplanade serve`, on another port: joins its Ray node and its stores, and serves until it is killed.

python -m tests.proof.second_gateway --ray ADDRESS --postgres URL --redis URL --port PORT
"""

from __future__ import annotations

import argparse
import asyncio

from actors.ray_system import RaySystem, _true_loopback, start_ray
from esplanade.gateway_process import GatewayProcess
from esplanade.service_config import ServiceConfig


async def serve(arguments: argparse.Namespace) -> None:
    with _true_loopback():  # the service's own node is on loopback, where Ray would look for it at the machine's outer address
        start_ray(arguments.ray)
    config = ServiceConfig(
        postgres_url=arguments.postgres, redis_url=arguments.redis, shards=0, spares=0, host="127.0.0.1", gateway_port=arguments.port, api_port=0,
        local_sign_in=False, allowed_origins=(), console=None, max_connections=20_000, lease_ttl_s=3.0, tick_deadline_s=1.0,
    )  # fmt: skip
    await GatewayProcess(config, RaySystem(), 1).start()
    print("serving", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.proof.second_gateway")
    for name in ("ray", "postgres", "redis"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
