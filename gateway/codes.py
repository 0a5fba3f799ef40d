"""WebSocket close codes of `esplanade.v1`. The range tells a client what to do; docs/protocol.md says the same to other languages.

4000-4099  give up: the same hello would be refused again
4100-4199  reconnect with back-off, resume from the last place
4200-4299  reconnect with a new token
"""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    PROTOCOL = 4000  # a frame before hello, a second hello, a subprotocol we do not speak
    GARBAGE = 4001  # too many frames that could not be read
    TOO_LARGE = 4002  # a message above the role's limit
    UNAUTHENTICATED = 4003  # no token, or one that does not verify
    REFUSED = 4004  # the hello is not acceptable: unknown tenant, no guests, too many sessions of one person
    DRAINING = 4100  # this gateway is going away
    SILENT = 4101  # no hello in time, or nothing heard within two heartbeats
    SLOW = 4102  # read too slowly: unsent data above the limit
    FLOOD = 4103  # sent too fast for too long
    FULL = 4104  # the gateway has as many sessions as it may
    FAULT = 4106  # our fault
    EXPIRED = 4200  # the token ran out
    REVOKED = 4201  # the sign-in, the key or the person was revoked

    @property
    def reconnect(self) -> bool:
        return self >= 4100
