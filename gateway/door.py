"""Where connections come in: the listening sockets, the handshake, and the WebSocket that is left of it.

Owns who is let in and when. A storm is taken in the order in which it came, ACCEPTED_A_TURN in a turn of the loop: a few are served whole while the others wait in the kernel's
queue, and not all of them half. Where that queue was never empty for PATIENT_S, who has waited in it for longer than that is told when to come again, before anything of theirs is read that
costs: they are about to give up, and served late they would come once more. (After a pause of the server's own, however long, all are served.) Who is connected and says nothing is nobody's burden: they give way, the oldest first, beyond MAX_SILENT.
"""

from __future__ import annotations

import asyncio
import errno
import http
import logging
import math
import socket
import ssl
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from websockets.asyncio.connection import Connection
from websockets.datastructures import MultipleValuesError
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from gateway import frames as f
from gateway.admission import Returns
from gateway.handshake import Asked, Refusal, asked_in, refused, switching

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

_log = logging.getLogger("esplanade.gateway.door")
_protocol_log = logging.getLogger("esplanade.gateway.websocket")
_SUBPROTOCOLS: Final = [Subprotocol(name) for name in f.SUBPROTOCOLS]

BACKLOG: Final = 4096
"""Connections that wait to be accepted. With asyncio's 100 the kernel dropped the others of a reconnect storm, each for a second or more."""
ACCEPTED_A_TURN: Final = 64
PATIENT_S: Final = 6.0
"""A client's patience is 10 s (docs/protocol.md), and it needs some of it after it was let in."""
MAX_SILENT: Final = 1_024
"""Sockets whose request has not come."""
LOOK_S: Final = 0.25
"""Between two looks, while nobody is let in, at who has waited too long; and until the next try where the machine has no more descriptors."""
EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
SOCKET_SLACK: Final = 2
"""A message above its limit gets Bye and a code; above this many times the limit the socket is closed (1009) without being read."""
WHOLE_TEXT: Final = 0x81
WHOLE: Final = (WHOLE_TEXT, 0x82)
"""First byte of a message in one frame, text or binary."""
READ_BYTES: Final = 65_536
"""Of one read from a socket. asyncio asks for 256 KiB, which the C library maps anew and gives back each time: that costs several times what the read does."""
SHORT_HEAD: Final = 6
"""Bytes of a client's frame before the payload, where that is below 126 bytes: two, and the mask."""


class Host(Protocol):
    """Whom the door serves. None of these may wait."""

    def check(self, asked: Asked, address: str) -> Refusal | None:
        """Why this handshake is refused, if it is."""
        ...

    def enter(self, ws: DirectConnection) -> None:
        """The handshake is done: `take` and `gone` of the connection are to be set."""
        ...

    def has_room(self) -> bool:
        """Whether more can be let in now; where not, `Door.open_again` is called once they can."""
        ...

    def turned_away(self, reason: str) -> None:
        """Somebody was sent away without a look at what they wanted."""
        ...


class DirectConnection(Connection):
    """A WebSocket that hands a message over in the turn of the loop that reads it. The library's queue, and the tasks that serve it, cost more than the rest of a small request.

    Handshakes as every client writes them, and whole messages in one frame, which is what clients send, are cut out of the stream here; everything else (fragments, pings, closing, whatever
    breaks the protocol) is given to the library, whole frames at a time, so that it judges it as ever.
    """

    def __init__(self, door: Door) -> None:
        super().__init__(
            ServerProtocol(subprotocols=_SUBPROTOCOLS, max_size=SOCKET_SLACK * f.MAX_GUEST_MESSAGE_BYTES, logger=_protocol_log),
            ping_interval=None,
            ping_timeout=None,
            close_timeout=door.close_timeout_s,
        )
        self.protocol: ServerProtocol
        self.take: Callable[[bytes, bool], None] = _nobody
        """Gets every message, and whether it is text."""
        self.gone: Callable[[], None] | None = None
        self._door = door
        self._partial: bytearray | None = None
        self._text = False
        self._cutting: bool | None = None  # None: until the handshake is done
        self._rest = bytearray()  # of a frame whose end has not come yet
        self._read = False  # whether anything was

    @property
    def address(self) -> str:
        """The address that the socket's other end has."""
        address = self.remote_address
        return str(address[0]) if isinstance(address, tuple) and address else ""

    # --- the socket ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if hasattr(transport, "max_size"):  # asyncio's own transports of plain sockets
            transport.max_size = READ_BYTES
        self._door.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._door.went(self)
        gone, self.gone, self.take = self.gone, None, _nobody
        if gone is not None:
            gone()

    def data_received(self, data: bytes) -> None:
        if self._cutting:
            self._cut(data)
        elif self._cutting is None:
            self._shake_hands(data)
        else:
            super().data_received(data)

    def eof_received(self) -> None:
        """The other end is gone, and the transport closes: the library's own end of stream would be one more system call."""
        self.protocol.receive_eof()
        self.protocol.data_to_send()

    # --- the handshake ---

    def _shake_hands(self, data: bytes) -> None:
        asked = None if self._read else asked_in(data, f.SUBPROTOCOLS)
        self._read = True
        if asked is not None:
            refusal = self._door.host.check(asked, self.address)
            if refusal is not None:
                self._refuse(refusal)
                return
            protocol = self.protocol
            protocol.subprotocol = Subprotocol(asked.subprotocol)
            protocol.state = State.OPEN
            protocol.parser = protocol.parse()  # of frames, from here on
            next(protocol.parser)
            self.transport.write(switching(asked))
            self._enter(cutting=True)
            return
        super().data_received(data)
        if self._cutting is None and self.protocol.eof_sent:  # what came is no request at all
            self.transport.close()

    def process_event(self, event: Any) -> None:
        if isinstance(event, Request):
            self._judge(event)
        elif self._cutting is None or not isinstance(event, Frame) or event.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            super().process_event(event)
        else:
            self._piece(event)

    def _judge(self, request: Request) -> None:
        """A request that the library read."""
        self.request = request
        try:
            asked = Asked(request.path, request.headers.get("Origin"), request.headers.get("Host") or "")
        except MultipleValuesError:  # the library says so
            refusal = None
        else:
            refusal = self._door.host.check(asked, self.address)
        if refusal is not None:
            self._refuse(refusal)
            return
        self.response = self.protocol.accept(request)
        self.protocol.send_response(self.response)
        self.send_data()
        if self.protocol.state is State.OPEN:
            self._enter(cutting=False)  # what came behind it is in the library's hands
        else:
            self.transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        self.transport.write(refused(refusal))
        self.transport.close()

    def _enter(self, *, cutting: bool) -> None:
        self._cutting = cutting
        self._door.went(self)
        self._door.host.enter(self)

    # --- messages ---

    def _cut(self, data: bytes) -> None:
        """Frames, RFC 6455 section 5.2."""
        rest = self._rest
        at, size = 0, len(data)
        if SHORT_HEAD <= size < SHORT_HEAD + 126 and data[1] == size - SHORT_HEAD | 0x80 and data[0] in WHOLE and not rest and self._is_plain():
            self.take(apply_mask(data[SHORT_HEAD:], data[2:SHORT_HEAD]), data[0] == WHOLE_TEXT)
            return  # one short message, whole: nearly all that comes
        if rest:
            rest += data
            size = len(rest)
        stream: bytes | bytearray = rest or data
        while size - at >= SHORT_HEAD:
            first, length, head = stream[at], stream[at + 1] & 0x7F, SHORT_HEAD
            if length >= 126:
                head = SHORT_HEAD + (2 if length == 126 else 8)
                if size - at < head:
                    break
                length = int.from_bytes(stream[at + 2 : at + head - 4], "big")
            limit = self.protocol.max_message_size
            if first & 0x70 or not stream[at + 1] & 0x80 or self.protocol.state is not State.OPEN or (limit is not None and length > limit):
                self._cutting = False
                break
            end = at + head + length
            if end > size:
                break
            if first in WHOLE and self._partial is None:
                self.take(apply_mask(stream[at + head : end], stream[at + head - 4 : at + head]), first == WHOLE_TEXT)
            else:
                super().data_received(bytes(stream[at:end]))
            at = end
        if not self._cutting:
            left = bytes(stream[at:])
            rest.clear()
            super().data_received(left)
        elif rest:
            del rest[:at]
        else:
            rest += memoryview(data)[at:]

    def _is_plain(self) -> bool:
        """Whether a whole short message can be taken as it is: nothing of a longer one is pending, and the connection is open."""
        return self._partial is None and self.protocol.state is State.OPEN

    def _piece(self, event: Frame) -> None:
        """A frame of a message, from the library."""
        if event.opcode is not Opcode.CONT:
            self._text = event.opcode is Opcode.TEXT
            self._partial = None if event.fin else bytearray()
        data = bytes(event.data)
        if self._partial is not None:
            self._partial += data
            if not event.fin:
                return
            data, self._partial = bytes(self._partial), None
        self.take(data, self._text)


def _nobody(data: bytes, text: bool) -> None:
    """What comes when nobody is there to take it any more."""


class Door:
    """`start` and `stop` in one loop. `poll` about once a second."""

    def __init__(self, host: Host, returns: Returns, *, now: Callable[[], float], open_timeout_s: float, close_timeout_s: float,
                 context: ssl.SSLContext | None = None) -> None:  # fmt: skip
        self.host = host
        self.close_timeout_s = close_timeout_s
        self._returns = returns
        self._now = now
        self._open_timeout_s = open_timeout_s
        self._context = context
        self._listening: list[socket.socket] = []
        self._held: deque[socket.socket] = deque()  # accepted, and not let in yet: ACCEPTED_A_TURN at most of each listening socket
        self._silent: dict[DirectConnection, float] = {}  # since when, the oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._behind_since: float | None = None  # somebody has waited ever since

    # --- life ---

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port (a free one, where 0 was asked)."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                listening = socket.socket(family, kind, protocol)
            except OSError:  # a machine without IPv6
                continue
            self._listening.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "SO_REUSEPORT"):  # other gateways of the same user may listen there too
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if port == 0 and len(self._listening) > 1:  # one port for all addresses of a name
                address = (address[0], self.port, *address[2:])
            listening.bind(address)
            listening.listen(BACKLOG)
            listening.setblocking(False)
            loop.add_reader(listening, self._knock, listening)
        return self.port

    @property
    def port(self) -> int:
        return int(self._listening[0].getsockname()[1])

    def shut(self) -> None:
        """Listen no more: who comes from now on comes to the others on the port."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        listening, self._listening = self._listening, []
        for one in listening:
            asyncio.get_running_loop().remove_reader(one)
            one.close()

    async def stop(self) -> None:
        """Let nobody in any more; whose handshake is not done is cut off."""
        self.shut()
        while self._held:
            self._held.popleft().close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for ws in list(self._silent):
            ws.transport.abort()
        await asyncio.gather(*(ws.wait_closed() for ws in list(self._silent)))

    def poll(self, stalled_s: float) -> None:
        """Cut off who has not said what they want in time. `stalled_s`: of the time since the last call, how long nobody was listened to; it is not theirs."""
        now = self._now()
        if stalled_s > 0.0:
            self._silent = {ws: since + stalled_s for ws, since in self._silent.items()}
        for ws, since in list(self._silent.items()):
            if now - since <= self._open_timeout_s:
                break
            self._cut_off(ws, "silent")

    # --- coming in ---

    def _knock(self, listening: socket.socket) -> None:
        none_left = False
        for _ in range(ACCEPTED_A_TURN):
            try:
                came, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                none_left = True
                break
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                _log.error("cannot_accept", extra={"error": str(error), "retry_s": LOOK_S})
                self._close_for_now()
                break
            came.setblocking(False)
            self._held.append(came)
        self._let_in()
        if none_left and not self._held:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = self._now()

    def _let_in(self) -> None:
        overdue = self._behind_since is not None and self._now() - self._behind_since > PATIENT_S
        while self._held:
            if overdue and waited_s(self._held[0]) > PATIENT_S:
                self._turn_away(self._held.popleft())
            elif self.host.has_room():
                self._spawn(self._connect(self._held.popleft()))
            else:
                self._close_for_now()
                return

    def _close_for_now(self) -> None:
        """Who comes waits in the kernel's queue."""
        if self._pause is None:
            loop = asyncio.get_running_loop()
            for listening in self._listening:
                loop.remove_reader(listening)
            self._pause = loop.call_later(LOOK_S, self.open_again)

    def open_again(self) -> None:
        """There may be room."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            for listening in self._listening:
                asyncio.get_running_loop().add_reader(listening, self._knock, listening)
            self._let_in()

    async def _connect(self, came: socket.socket) -> None:
        timeout_s = None if self._context is None else self._open_timeout_s
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: DirectConnection(self), came, ssl=self._context, ssl_handshake_timeout=timeout_s
            )
        except (OSError, EOFError):  # gone already, or no TLS
            came.close()
        except asyncio.CancelledError:
            came.close()
            raise

    def _turn_away(self, came: socket.socket) -> None:
        """The cheapest answer there is: one read, one write. Over TLS that would be the dearest, and the connection is closed without a word."""
        self.host.turned_away("late")
        if self._context is None:
            later_s = math.ceil(self._returns.later(self._now()))
            refusal = Refusal(http.HTTPStatus.SERVICE_UNAVAILABLE, "late", "too many at once; reconnect later\n", later_s)
            try:
                came.recv(65_536)  # unread, it would have the kernel reset the connection, and the answer with it
                came.send(refused(refusal))
            except OSError:  # gone already
                pass
        came.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- who has not said what they want ---

    def came(self, ws: DirectConnection) -> None:
        self._silent[ws] = self._now()
        if len(self._silent) > MAX_SILENT:
            self._cut_off(next(iter(self._silent)), "silent")

    def went(self, ws: DirectConnection) -> None:
        self._silent.pop(ws, None)

    def _cut_off(self, ws: DirectConnection, reason: str) -> None:
        self._silent.pop(ws, None)
        self.host.turned_away(reason)
        ws.transport.abort()


def waited_s(came: socket.socket) -> float:
    """How long ago the last byte of a connection came that nobody has read yet: its request's, or the connection itself (Linux; 0 elsewhere)."""
    if not hasattr(socket, "TCP_INFO") or came.family not in (socket.AF_INET, socket.AF_INET6):
        return 0.0
    info = came.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, LAST_DATA_RECV_AT + 4)
    return int.from_bytes(info[LAST_DATA_RECV_AT:], "little") / 1000.0 if len(info) == LAST_DATA_RECV_AT + 4 else 0.0


LAST_DATA_RECV_AT: Final = 52
"""Of tcpi_last_data_recv (ms) in struct tcp_info of linux/tcp.h: 8 bytes, then twelve u4."""
