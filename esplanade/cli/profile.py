"""What `esplanade profile` and `esplanade top` do: look at a running service from outside, through its API. They disturb it no more than a reader of /metrics does.

Owns finding the service, asking it, and the flame graphs that py-spy records of its shards.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from actors.profile import ShardProfile
from esplanade.cli.readings import read, tables
from esplanade.core.errors import Conflict, Fault, Forbidden, InvalidInput, NotFound, Unavailable
from esplanade.whereabouts import find

ASK_S: Final = 10.0
REFRESH_S: Final = 1.0


class Observer:
    """Asks one service for its profile. `api`: its address; by default that of the service on `data_dir`."""

    def __init__(self, data_dir: Path, *, api: str | None = None, token: str | None = None) -> None:
        self.url = (api or find(data_dir).api_url).rstrip("/")
        self._token = token

    def look(self) -> list[ShardProfile]:
        """Every shard's profile now. Raises Unavailable where nobody answers, Forbidden where the service wants a token."""
        request = urllib.request.Request(f"{self.url}/v1/profile", headers={"Authorization": f"Bearer {self._token}"} if self._token else {})
        try:
            with urllib.request.urlopen(request, timeout=ASK_S) as reply:
                return msgspec.json.decode(reply.read(), type=list[ShardProfile])
        except urllib.error.HTTPError as error:
            with error:
                body = error.read()
            raise Forbidden(f"{self.url} refused ({error.code}): {_detail(body)}") from error
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self.url} does not answer ({error}); is the service still running?") from error
        except msgspec.DecodeError as error:
            raise Fault(f"{self.url}/v1/profile: {error}; the service is of another version, use its own command") from error


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")


def profile(observer: Observer, *, seconds: float, as_json: bool, flame: Path | None, hot: int, console: Console) -> None:
    """`esplanade profile`: what happens within `seconds` (0: what has since the shards started)."""
    if not 0 <= seconds <= 3600:
        raise InvalidInput(f"--seconds {seconds:g}: must be 0 to 3600")
    if flame is not None and seconds < 1:
        raise InvalidInput(f"--flame with --seconds {seconds:g}: a flame graph needs 1 second or more")
    before: list[ShardProfile] = []
    began = time.monotonic()
    if seconds:
        before = observer.look()
        began = time.monotonic()
        if flame is not None:
            for path in record_flames(before, flame, seconds):
                console.print(f"flame    {path}", highlight=False, soft_wrap=True)
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
    after = observer.look()
    reading = read(before, after, time.monotonic() - began if seconds else 0.0)
    if as_json:
        sys.stdout.write(json.dumps(msgspec.to_builtins(reading), indent=2) + "\n")
    else:
        console.print(tables(reading, hot=hot))


def record_flames(shards: Sequence[ShardProfile], flame: Path, seconds: float) -> list[Path]:
    """A flame graph (SVG) of every shard that owns partitions, all recorded at once: FILE itself for one, FILE with the shard's name for several.

    Raises NotFound where py-spy is not installed, Conflict where it may not look at the processes.
    """
    beside = Path(sys.executable).parent / "py-spy"
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if program is None:
        raise NotFound("py-spy is not installed, which records flame graphs; install it: pip install 'esplanade[profile]'")
    owners = [shard for shard in shards if shard.partitions]
    paths = [flame if len(owners) == 1 else flame.with_stem(f"{flame.stem}-{shard.shard}") for shard in owners]
    running = [
        subprocess.Popen(
            [program, "record", "--pid", str(shard.pid), "--output", str(path), "--duration", str(max(1, round(seconds))), "--rate", "200", "--idle"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for shard, path in zip(owners, paths, strict=True)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=seconds + 60)[0] for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    for process, text, shard in zip(running, said, owners, strict=True):
        if process.returncode != 0:
            why = " ".join(text.split())[-300:]
            raise Conflict(f"py-spy cannot look at {shard.shard} (process {shard.pid}): {why}; run it as the service's user, or as root")
    return paths


def top(observer: Observer, *, hot: int, console: Console, looks: int | None = None) -> None:
    """`esplanade top`: the same, each second anew, until interrupted (KeyboardInterrupt leaves the terminal as it was) or after `looks` of them."""
    before: list[ShardProfile] = []
    looked = 0.0
    shown = 0
    with Live(Text("looking ..."), console=console, screen=console.is_terminal, auto_refresh=False, transient=False) as live:
        while looks is None or shown < looks:
            try:
                after, now = observer.look(), time.monotonic()
            except Unavailable as error:
                live.update(Text(f"{error.message} Looking again.", style="yellow"), refresh=True)
                before = []
            else:
                if before:
                    live.update(tables(read(before, after, now - looked), hot=hot), refresh=True)
                    shown += 1
                before, looked = after, now
            if looks is None or shown < looks:
                time.sleep(REFRESH_S)
