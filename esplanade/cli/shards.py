"""`esplanade shards`: says what the shards of a service on this machine do, and has it add, drain and remove them. Holds no logic of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from esplanade.cli.options import Config, DataDir
from esplanade.settings import load_settings

if TYPE_CHECKING:
    from esplanade.control import Do

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A shard, as `list` names it.")]


@app.command("list")
def list_shards(data_dir: DataDir = None, config: Config = None) -> None:
    """Say how many partitions each shard owns."""
    _order("list", "", data_dir, config)


@app.command()
def add(data_dir: DataDir = None, config: Config = None) -> None:
    """Start one more shard, and give it a share of the partitions."""
    _order("add", "", data_dir, config)


@app.command()
def drain(shard: Name, data_dir: DataDir = None, config: Config = None) -> None:
    """Hand everything that a shard owns to the others; its process stays."""
    _order("drain", shard, data_dir, config)


@app.command()
def remove(shard: Name, data_dir: DataDir = None, config: Config = None) -> None:
    """Drain a shard, then end its process."""
    _order("remove", shard, data_dir, config)


def _order(do: Do, shard: str, data_dir: Path | None, config: Path | None) -> None:
    from esplanade.control import order

    outcome = asyncio.run(order(load_settings(config=config, data_dir=data_dir).data_dir, do, shard))
    if outcome.said:
        print(outcome.said)
    for name, does in outcome.shards.items():
        print(f"{name:10} {does}")
