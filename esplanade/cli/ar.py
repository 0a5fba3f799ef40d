"""`esplanade ar`: maps that cameras are localised in, written into the blob store alone (a running service sees the new version at the next query) and tried there; and packs, fetched from a service."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from esplanade.cli.options import Config, DataDir
from esplanade.core.errors import EsplanadeError, InvalidInput
from esplanade.settings import load_settings

if TYPE_CHECKING:
    from ar.clouds import F4, F8, Camera
    from ar.maps import MapBuilder
    from ar.pose import Poses

app = typer.Typer(
    help="Maps that cameras are localised in, a camera placed in one, and packs of a place to work without a network.",
    no_args_is_help=True,
    add_completion=False,
)
_map = typer.Typer(help="Build and show maps.", no_args_is_help=True, add_completion=False)
app.add_typer(_map, name="map")
_out = Console()
_err = Console(stderr=True)

Venue = Annotated[str, typer.Option(help="Id of the venue.")]
Level = Annotated[int, typer.Option(min=0, max=254, help="Index of the level, from the lowest.")]
Tenant = Annotated[str, typer.Option(help="Tenant that the venue belongs to.")]


@_map.command()
def build(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of frames (NAME.depth.png in millimetres beside NAME.pose.txt, camera to venue), or of .ply and .pcd clouds."),
    ],
    venue: Venue,
    level: Level = 0,
    tenant: Tenant = "demo",
    camera: Annotated[str, typer.Option(help="Of frames: fx,fy,cx,cy in pixels.")] = "",
    viewpoint: Annotated[str, typer.Option(help="Of clouds, in the venue's frame already: x,y,z from where they were seen, in metres.")] = "0,0,1.5",
    voxel_m: Annotated[float, typer.Option(help="How far apart points are kept, in metres.")] = 0.02,
    tile_m: Annotated[float, typer.Option(help="Edge of a tile, in metres.")] = 8.0,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Build a level's map from posed depth frames or clouds, and keep it as the newest version."""
    from actors.map_shelf import store_map
    from ar.maps import MapBuilder
    from esplanade.storage.blobs import open_blobs

    try:
        settings = load_settings(config=config, data_dir=data_dir)
        builder = MapBuilder(voxel_m=voxel_m, tile_m=tile_m)
        added, of = add_folder(builder, source, camera=camera, viewpoint=viewpoint)
        built = builder.build()
        version = store_map(open_blobs(settings.blobs), tenant, venue, level, built, made_ms=time.time_ns() // 1_000_000)
    except EsplanadeError as error:
        _err.print(f"[bold red]{error.code}[/] {escape(error.message)}", soft_wrap=True)
        raise typer.Exit(2) from None
    _out.print(f"{added:,} points of {of} files, {len(built.keys)} tiles; level {level} of {escape(venue)}: version {version}", soft_wrap=True)


@_map.command()
def show(venue: Venue, level: Level = 0, tenant: Tenant = "demo", data_dir: DataDir = None, config: Config = None) -> None:
    """The version of a level's map that counts now, and its tiles."""
    from actors.map_shelf import newest_map, open_map
    from esplanade.storage.blobs import open_blobs

    try:
        blobs = open_blobs(load_settings(config=config, data_dir=data_dir).blobs)
        version = newest_map(blobs, tenant, venue, level)
        held = open_map(blobs, version)
        lines = [
            f"{key}: {len(held.tile(key).surface.points):,} points, {len(held.tile(key).cloud.features):,} features" for key in sorted(held.keys)
        ]
    except EsplanadeError as error:
        _err.print(f"[bold red]{error.code}[/] {escape(error.message)}", soft_wrap=True)
        raise typer.Exit(2) from None
    _out.print(f"version {version}, voxel {held.voxel_m} m, tiles of {held.tile_m} m", soft_wrap=True)
    for line in lines:
        _out.print(f"  {line}")


@app.command()
def localise(
    source: Annotated[
        Path, typer.Argument(help="A depth image (.png, 16 bits, millimetres), or a .ply or .pcd cloud in the camera's own frame, metres.")
    ],
    venue: Venue,
    level: Level = 0,
    tenant: Tenant = "demo",
    camera: Annotated[str, typer.Option(help="Of a depth image: fx,fy,cx,cy in pixels.")] = "",
    near: Annotated[str, typer.Option(help="Where it is, if that is known: x,y,z,within, in metres, in the venue's frame.")] = "",
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Say where a camera is in the newest map of a level, as a service on the same blob store would; ends with 1 where it is not known."""
    from actors.map_shelf import newest_map, open_map
    from ar.clouds import Camera
    from ar.localisation import Located, Prior, localise_cloud, localise_frame
    from esplanade.storage.blobs import open_blobs

    try:
        blobs = open_blobs(load_settings(config=config, data_dir=data_dir).blobs)
        where = open_map(blobs, newest_map(blobs, tenant, venue, level))
        told = _numbers(near, 4, "--near x,y,z,within") if near else None
        prior = None if told is None else Prior((told[0], told[1], told[2]), told[3])
        try:
            if source.suffix.lower() in (".ply", ".pcd"):
                found = localise_cloud(where, _points(source), prior=prior)
            else:
                found = localise_frame(where, _depth_m(source), Camera(*_numbers(camera, 4, "--camera fx,fy,cx,cy")), prior=prior)
        except InvalidInput as error:
            raise InvalidInput(f"{source}: {error.message}") from error
    except EsplanadeError as error:
        _err.print(f"[bold red]{error.code}[/] {escape(error.message)}", soft_wrap=True)
        raise typer.Exit(2) from None
    if not isinstance(found, Located):
        _err.print(f"not known (chance {found.chance:.2f}): {escape(found.reason)}", soft_wrap=True)
        raise typer.Exit(1)
    x, y, z = found.pose.translation_m[0]
    turn = ", ".join(f"{v:.4f}" for v in found.pose.rotation[0])
    _out.print(f"at {x:.3f}, {y:.3f}, {z:.3f} m, rotation {turn} (x, y, z, w); chance {found.chance:.2f}", soft_wrap=True)


@app.command()
def pack(
    venue: Annotated[str, typer.Argument(help="Id of the venue.")],
    place: Annotated[str, typer.Argument(help="LEVEL,X,Y,RADIUS_M: a circle on a level, in metres.")],
    to: Annotated[Path, typer.Option(help="File to write.")],
    scene: Annotated[list[str] | None, typer.Option(help="A scene that comes along; may be given several times.")] = None,
    tenant: Tenant = "demo",
    token: Annotated[
        str, typer.Option(envvar="ESPLANADE_TOKEN", help="Token of who will use it: what they may not see is not in it (`esplanade login`).")
    ] = "",
    api: Annotated[str | None, typer.Option(help="Address of the service's API; by default that of the service on the data directory.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Fetch a place in one file: anchors, map tiles, scenes and their assets. What broke off goes on where it was."""
    import asyncio

    from ar.pack import Pack
    from esplanade.whereabouts import find
    from gateway.offline import fetch_pack

    try:
        base = api or find(load_settings(config=config, data_dir=data_dir).data_dir).api_url
        asyncio.run(fetch_pack(base, tenant, venue, place, token=token, to=to, scenes=scene or ()))
        held = Pack(to.read_bytes())
    except EsplanadeError as error:
        _err.print(f"[bold red]{error.code}[/] {escape(error.message)}", soft_wrap=True)
        raise typer.Exit(2) from None
    _out.print(
        f"{escape(str(to))}: {to.stat().st_size:,} bytes; {len(held.anchors())} anchors, {len(held.names('tile'))} tiles, {len(held.names('scene'))} scenes, "
        f"{len(held.names('asset'))} assets; {held.digest.hex()}",
        soft_wrap=True,
    )


def add_folder(builder: MapBuilder, source: Path, *, camera: str = "", viewpoint: str = "0,0,1.5") -> tuple[int, int]:
    """Add every frame, else every cloud, of a folder; returns (points, files). Raises InvalidInput naming the file that is wrong, Unavailable without Open3D."""
    from ar.clouds import Camera

    frames = sorted(source.glob("*.depth.png"))
    clouds = sorted(path for path in source.glob("*") if path.suffix.lower() in (".ply", ".pcd"))
    if not frames and not clouds:
        raise InvalidInput(f"{source}: neither NAME.depth.png nor .ply or .pcd files are in it")
    added = 0
    lens = Camera(*_numbers(camera, 4, "--camera fx,fy,cx,cy")) if frames else None
    seen_from = _numbers(viewpoint, 3, "--viewpoint x,y,z")
    for path in frames or clouds:
        try:
            added += _add_frame(builder, path, lens) if lens is not None else _add_cloud(builder, path, seen_from)
        except InvalidInput as error:
            raise InvalidInput(f"{path}: {error.message}") from error
    return added, len(frames or clouds)


def _add_frame(builder: MapBuilder, path: Path, lens: Camera) -> int:
    return builder.add_frame(_depth_m(path), lens, _pose(path.with_name(path.name.replace(".depth.png", ".pose.txt"))))


def _depth_m(path: Path) -> F4:
    """Raises InvalidInput for what is no depth image in millimetres."""
    import numpy as np

    from ar.clouds import open3d

    if not path.is_file():
        raise InvalidInput("there is no such file")
    with path.open("rb") as file:
        begins = file.read(8)
        file.seek(-min(12, path.stat().st_size), os.SEEK_END)
        ends = file.read()
    if begins != b"\x89PNG\r\n\x1a\n" or b"IEND" not in ends:  # Open3D would read what is missing as nothing measured
        raise InvalidInput("must be a whole .png; it is none, or is cut off")
    depth = np.asarray(open3d().io.read_image(str(path)))
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise InvalidInput(f"image of shape {depth.shape}, type {depth.dtype}: must be one channel of 16 bits, millimetres")
    return (depth / 1000).astype(np.float32)


def _pose(path: Path) -> Poses:
    import numpy as np

    from ar.pose import Poses

    try:
        matrix = np.loadtxt(path)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"pose {path.name}: {error}; must be four rows of four numbers, camera to venue") from error
    return Poses.from_matrix(matrix, tolerance=1e-2)


def _add_cloud(builder: MapBuilder, path: Path, seen_from: list[float]) -> int:
    from ar.pose import Poses

    return builder.add_cloud(_points(path), Poses.identity(), viewpoint=seen_from)


def _points(path: Path) -> F8:
    """Points (n, 3) of a .ply or .pcd. Raises InvalidInput where they are fewer than its head says."""
    import numpy as np

    from ar.clouds import open3d

    if not path.is_file():
        raise InvalidInput("there is no such file")
    points = np.asarray(open3d().io.read_point_cloud(str(path)).points)
    said = _said(path)
    if said is not None and said != len(points):
        raise InvalidInput(f"its head says {said} points, {len(points)} could be read; it is cut off or garbled")
    return np.asarray(points, np.float64)


def _said(path: Path) -> int | None:
    """How many points a PLY or PCD says it has."""
    with path.open("rb") as file:
        for line in file.read(4096).splitlines():
            words = line.split()
            if words[:2] == [b"element", b"vertex"] or words[:1] == [b"POINTS"]:
                return int(words[-1]) if words[-1].isdigit() else None
    return None


def _numbers(text: str, count: int, what: str) -> list[float]:
    try:
        found = [float(one) for one in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count:
        raise InvalidInput(f"{what}: {text[:80]!r}; must be {count} numbers with commas between")
    return found
