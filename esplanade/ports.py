"""Ports of this machine: one that is free, and what to say of one that is not."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from collections.abc import Iterator
from typing import Final

from esplanade.core.errors import Conflict, InvalidInput

LASTING_PORTS: Final = range(20_000, 32_000)
"""Above those of Ray's workers, below those that Linux and macOS give to outgoing connections."""
PORT_TRIES: Final = 64


@contextlib.contextmanager
def taking_port(what: str, setting: str, host: str, port: int) -> Iterator[None]:
    """Turn the system's refusal of a port into Conflict (taken) or InvalidInput (not ours to have)."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(f"{what}: port {port} on {host} is taken; stop what listens there, or set {setting} to another (0: a free one)") from error
        raise InvalidInput(f"{what}: cannot listen on {host} port {port} ({error.strerror}); set ESPLANADE_HOST and {setting} to others") from error


def free_port(host: str, port: int = 0) -> int:
    """A TCP port that is free now, or `port` if it is (raises OSError if not). A gateway keeps its port over a restart, so it is chosen before the process starts.

    It is one that the system gives to no outgoing connection by itself: until the process listens, seconds later on a busy machine, somebody's would take it.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for wanted in (port,) if port else (*random.sample(LASTING_PORTS, PORT_TRIES), 0):
            try:
                probe.bind((host, wanted))
            except OSError as error:
                if port or error.errno != errno.EADDRINUSE:
                    raise
                continue
            break
        return int(probe.getsockname()[1])
