"""TLS for gateway and API: 1.2 and later, and certificates that change while connections stay.

Owns the context and the watch over its files. A certificate that cannot be read leaves the one in force.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final

from esplanade.core.errors import InvalidInput

WATCH_S: Final = 2.0
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption alone. Those of 1.3 are all of this kind."""

_log = logging.getLogger("esplanade.gateway.tls")


class Certificate:
    """A chain and its key in PEM files. New handshakes have what is in the files; connections that are open keep what they have."""

    def __init__(self, chain: Path, key: Path) -> None:
        """Raises InvalidInput where they cannot be read, or do not belong together."""
        self._files = (chain, key)
        self.context = self._made()
        self._seen = self._stamp()
        self._task: asyncio.Task[None] | None = None
        self.loads = 1

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
        try:
            context.load_cert_chain(*self._files)
        except (OSError, ssl.SSLError) as error:
            chain, key = self._files
            raise InvalidInput(
                f"tls_certificate {chain}, tls_key {key}: {getattr(error, 'reason', None) or error}; name PEM files that belong together"
            ) from error
        return context

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in (file.stat() for file in self._files))

    def reload_if_changed(self) -> bool:
        """Whether there was another certificate, and it is in force now."""
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return False
            self._made()  # a context of its own first: half a pair must not get into the one that is in use
            self.context.load_cert_chain(*self._files)
        except (OSError, InvalidInput) as error:
            _log.error("certificate_not_loaded", extra={"error": str(error)})
            return False
        self._seen = stamp
        self.loads += 1
        _log.info("certificate_loaded", extra={"file": str(self._files[0])})
        return True

    def watch(self) -> None:
        """Look at the files every WATCH_S, until `stop`."""
        self._task = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            await asyncio.to_thread(self.reload_if_changed)

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
