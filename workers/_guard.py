"""The last resort of every decoder: a mistake of ours becomes a dead letter, not a worker that fails for ever."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from eventwriter.stream import HEADERS_MAX, Decoded, LateHeaders, Message, Reject, Row
from eventwriter.values import shown
from workers._limits import REJECTS_MAX, ROWS_MAX, TooLarge

_STEP = 16
"""One row of so many is weighed: a run of fewer large ones is at most so many times their payload."""
_FEW = 8 * _STEP
"""Rows of a message that are not worth weighing."""


def total(decode: Callable[[Message], Decoded]) -> Callable[[Message], Decoded]:
    """``decode``, with any exception turned into a reject of the whole message: TooLarge, which is meant for that, with
    the reason ``too_large``, any other with ``internal``."""

    @functools.wraps(decode)
    def guarded(message: Message) -> Decoded:
        try:
            if type(message.headers) is LateHeaders and message.headers.too_many:
                raise TooLarge(f"more than {HEADERS_MAX} headers")
            decoded = decode(message)
            if len(decoded.rows) > _FEW:
                _weigh(decoded.rows)
            if len(decoded.rejects) > REJECTS_MAX:
                raise _rejected(decoded)
            return decoded
        except TooLarge as error:
            return Decoded((), (Reject("too_large", str(error)),))
        except MemoryError:  # says nothing about the message
            raise
        except Exception as error:  # noqa: BLE001
            detail = f"{type(error).__name__}: {shown(str(error), 400)}"
            return Decoded((), (Reject("internal", detail.encode("utf-8", "replace").decode().replace("\0", "?")),))

    return guarded


def _rejected(decoded: Decoded) -> TooLarge:
    """What to raise for more than REJECTS_MAX rejects."""
    bad, first = len(decoded.rejects), decoded.rejects[0]
    count = bad + len(decoded.rows)
    return TooLarge(f"{bad} of its {count} records are bad, the first of them: {first.reason}: {first.detail}"[:500])


def _weigh(rows: Sequence[Row]) -> None:
    """Raises TooLarge for rows that share so much that they would be far more than the message was."""
    size = _STEP * sum(len(value) for row in rows[::_STEP] for value in row if isinstance(value, (bytes, str)))
    if size > ROWS_MAX:
        raise TooLarge(f"its {len(rows)} rows would be about {size >> 20} MiB, more than {ROWS_MAX >> 20}")
