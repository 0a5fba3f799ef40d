"""Requests of ours to addresses that others gave us: to public addresses alone, unless a setting allows more, and no further than where they were checked.

A name is resolved once, every address it has is judged, and the connection goes to one that was judged: a name that resolves to something else a moment later (DNS rebinding) gains nothing. No redirect
is followed, no proxy of the environment asked, and of an answer only its status is read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

import httpx

from esplanade.core.errors import InvalidInput, Unavailable

TIMEOUT_S: Final = 10.0
"""For the whole of a request."""
MAX_URL_CHARS: Final = 2_000
PORTS: Final = (80, 443)
"""And those from 1024 up: a service below is nobody's webhook."""

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Addresses of a host. Raises OSError."""


async def resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def check_url(url: str, *, private: bool) -> tuple[str, int]:
    """(host, port). Raises InvalidInput for what is no address for a webhook."""
    if len(url) > MAX_URL_CHARS or not url.isascii() or any(character <= " " for character in url):
        raise InvalidInput(f"url {url[:200]!r}: must be printable ASCII of at most {MAX_URL_CHARS} characters")
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise InvalidInput(f"url {url[:200]!r}: {error}") from error
    if parts.scheme not in (("https", "http") if private else ("https",)):
        raise InvalidInput(f"url {url[:200]!r}: must begin with https://")
    if not parts.hostname or parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidInput(f"url {url[:200]!r}: must name a host, without user, password or fragment")
    if port not in PORTS and port < 1024:
        raise InvalidInput(f"url {url[:200]!r}: port {port}; must be 80, 443, or 1024 and up")
    return parts.hostname, port


def is_public(address: str) -> bool:
    """Whether an address may be reached on behalf of others: neither this machine nor its neighbours, nor a way around that."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo is not None else None)
        if inner is not None:
            return is_public(str(inner))
        if ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64: the last 32 bits are an IPv4 address
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    return ip.is_global and not ip.is_multicast


class Outward:
    """Posts to addresses of partners. `private`: also to private addresses and without TLS. Close at the end."""

    def __init__(self, *, private: bool, resolve: Resolve = resolve) -> None:
        self.private = private
        self._resolve = resolve
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False, limits=httpx.Limits(max_connections=64))

    async def check(self, url: str) -> None:
        """Raises InvalidInput for a URL that would never be posted to, Unavailable where its name cannot be resolved now."""
        await self._address(url)

    async def _address(self, url: str) -> tuple[str, str, int]:
        host, port = check_url(url, private=self.private)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                addresses = await self._resolve(host, port)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise Unavailable(f"{host}: cannot be resolved ({error})") from error
        if not self.private:
            for address in addresses:
                if not is_public(address):
                    raise InvalidInput(f"{host} is at {address}: not a public address; give one that the internet reaches")
        if not addresses:
            raise Unavailable(f"{host}: has no address")
        return host, addresses[0], port

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """The status of the answer. Raises InvalidInput where the address is not for us (any more), Unavailable where no answer comes."""
        host, address, port = await self._address(url)
        where = httpx.URL(url).copy_with(host=address)
        name = f"[{host}]" if ":" in host else host
        named = name if port == (443 if where.scheme == "https" else 80) else f"{name}:{port}"
        request = self._client.build_request(
            "POST", where, content=body, headers={**headers, "Host": named, "Accept-Encoding": "identity"}, extensions={"sni_hostname": host}
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._client.send(request, stream=True)
                await answer.aclose()
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            raise Unavailable(f"{host}: {type(error).__name__} {error}".strip()) from error
        return answer.status_code

    async def close(self) -> None:
        await self._client.aclose()
