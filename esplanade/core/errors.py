"""The error tree. Every error names the value, the rule and the remedy.

EsplanadeError               code            retryable
|-- InvalidInput             invalid         no     a value from outside breaks a rule
|-- NotFound                 not_found       no     an id, topic or file that is not there
|-- Forbidden                forbidden       no     the caller's role does not allow this
|   |-- SecondFactorNeeded   second_factor   no     the role allows this only after a second factor
|   `-- ConsentNeeded        consent_needed  no     the person has not agreed to it
|-- Unauthenticated          unauthenticated no     no token, or one that does not verify
|-- Conflict                 conflict        no     the same key with other parameters; a second start
|-- LimitExceeded            limit           yes    a queue, rate, size or count is at its limit
|-- Unavailable              unavailable     yes    the owner is away; ask again with the same key
|-- Fenced                   fenced          yes    a former owner tried to append
`-- Fault                    fault           no     ours: a broken invariant

Exceptions are faults and refusals at the edges. What a behaviour refuses is a value (`actors.messages.Rejected`).
"""

from __future__ import annotations

from typing import ClassVar


class EsplanadeError(Exception):
    """Base of every error that Esplanade raises on purpose; `str()` is fit to show to the user."""

    code: ClassVar[str] = "fault"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(EsplanadeError):
    code = "invalid"


class NotFound(EsplanadeError):
    code = "not_found"


class Forbidden(EsplanadeError):
    code = "forbidden"


class SecondFactorNeeded(Forbidden):
    code = "second_factor"


class ConsentNeeded(Forbidden):
    code = "consent_needed"


class Unauthenticated(EsplanadeError):
    code = "unauthenticated"


class Conflict(EsplanadeError):
    code = "conflict"


class LimitExceeded(EsplanadeError):
    code = "limit"
    retryable = True


class Unavailable(EsplanadeError):
    code = "unavailable"
    retryable = True


class Fenced(EsplanadeError):
    code = "fenced"
    retryable = True


class Fault(EsplanadeError):
    code = "fault"
