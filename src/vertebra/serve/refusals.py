"""Why a server does not answer a request, as the client gets it: a status, a close code, words, and when to come back."""

from __future__ import annotations

from vertebra.errors import DataError, VertebraError


class Refusal(Exception):
    """A request that gets no answer."""

    status = 400
    close = 1011
    kind = "bad request"
    retry_after: int | None = None


class Unauthorized(Refusal):
    """No token, or another."""

    status, close, kind = 401, 1008, "unauthorized"


class Foreign(Refusal):
    """A web page of another place asks through somebody's browser."""

    status, close, kind = 403, 1008, "foreign origin"


class Nothing(Refusal):
    """There is nothing at that address."""

    status, close, kind = 404, 1008, "not found"


class TooLate(Refusal):
    """The body did not come in time."""

    status, kind = 408, "slow body"


class TooLarge(Refusal):
    """A body beyond the limit."""

    status, close, kind = 413, 1009, "too large"


class Busy(Refusal):
    """The queue is full, the model is not ready yet, or the server is about to end."""

    status, close, kind, retry_after = 503, 1013, "busy", 1


class OutOfTime(Refusal):
    """The answer took too long."""

    status, kind = 504, "time limit"


class Broken(Refusal):
    """A fault of ours; what it was stands in the log."""

    status, kind = 500, "internal error"


def refusal_of(error: BaseException) -> Refusal:
    """An error as the client sees it: a mistake of the client's in full, a fault of ours without its insides."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, VertebraError):
        made = Refusal(str(error))
        made.kind = "bad request" if isinstance(error, DataError) else type(error).__name__
        return made
    return Broken(f"the server failed ({type(error).__name__}); its log has the rest")
