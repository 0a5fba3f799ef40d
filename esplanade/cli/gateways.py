"""`esplanade gateways`: has a service on this machine put new gateway processes in the place of those that run. Holds no logic of its own."""

from __future__ import annotations

import asyncio

import typer

from esplanade.cli.options import Config, DataDir
from esplanade.settings import load_settings

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _one_of_several() -> None:
    """Keeps `restart` a command of its own name."""


@app.command()
def restart(data_dir: DataDir = None, config: Config = None) -> None:
    """Start a new process beside each gateway, on the same port, then have the old one's clients reconnect and end it; one after the other."""
    from esplanade.control import order

    print(asyncio.run(order(load_settings(config=config, data_dir=data_dir).data_dir, "restart_gateways")).said)
