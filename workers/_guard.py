"""The last resort of every decoder: a mistake in it becomes a dead letter, not a worker that fails for ever."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

from eventwriter.stream import HEADERS_MAX, Decoded, LateHeaders, Message, Reject, Row, Stream
from eventwriter.values import clean, shown
from workers._limits import REJECTS_MAX, ROWS_MAX, TooLarge

_STEP = 16
"""One row of so many is weighed: a run of fewer large ones is at most so many times their payload."""
_FEW = 8 * _STEP
"""Rows of a message that are not worth weighing."""
_WORD, _SENTENCE = 100, 500
"""Characters of a reason, and of a detail: they stand on the board, in the log, in metrics and in the database."""


def total(decode: Callable[[Message], Decoded]) -> Callable[[Message], Decoded]:
    """``decode``, with any exception turned into a reject of the whole message: TooLarge, which is meant for that, with
    the reason ``too_large``, any other with ``internal``."""

    @functools.wraps(decode)
    def guarded(message: Message) -> Decoded:
        try:
            headers = message[4]
            if headers is not None and type(headers) is LateHeaders and headers.too_many:
                raise TooLarge(f"more than {HEADERS_MAX} headers")
            decoded = decode(message)
            rows, rejects = decoded[0], decoded[1]
            if len(rows) > _FEW:
                _weigh(rows)
            if rejects and len(rejects) > REJECTS_MAX:
                told = f"{len(rejects)} of its {len(rows) + len(rejects)} records are bad, the first of them"
                raise TooLarge(f"{told}: {rejects[0].reason}: {rejects[0].detail}"[:500])
            return decoded
        except TooLarge as error:
            return Decoded((), (Reject("too_large", str(error)),))
        except MemoryError:  # says nothing about the message
            raise
        except Exception as error:  # noqa: BLE001
            detail = f"{type(error).__name__}: {shown(str(error), 400)}"
            return Decoded((), (Reject("internal", detail.encode("utf-8", "replace").decode().replace("\0", "?")),))

    guarded.__dict__["is_total"] = True
    return guarded


def guarded(stream: Stream) -> Stream:
    """The stream, whose decoder may be anybody's: whatever that raises or returns, each message has its rows, as wide
    as the stream's columns, or a reject with the reason ``internal``."""
    if getattr(stream.decode, "is_total", False):
        return stream
    width, decode, fast = len(stream.columns), stream.decode, stream.fast

    def checked(message: Message) -> Decoded:
        decoded = decode(message)
        if not isinstance(decoded, Decoded):
            raise TypeError(f"decode returned {shown(decoded)}, not Decoded")
        rows, rejects, repairs = decoded[0], [*(decoded[1] or ())], [*decoded[2]]
        for row in rows:
            if not isinstance(row, tuple) or len(row) != width:
                raise TypeError(f"decode returned the row {shown(row)}, not a tuple of {width} values")
        if not all(isinstance(reason, str) for reason in repairs):
            raise TypeError(f"decode returned the repairs {shown(repairs)}, not words")
        if rejects:
            _check(rejects, len(rows))
        if rejects or repairs:
            return Decoded(rows, [_told(reject) for reject in rejects], [_cut(reason, _WORD) for reason in repairs])
        return decoded

    def narrow(messages: Sequence[Message]) -> Sequence[Row | None]:
        rows = fast(messages) if fast else ()
        return [row if isinstance(row, tuple) and len(row) == width else None for row in rows]

    return replace(stream, decode=total(checked), fast=narrow if fast else None)


def _check(rejects: Sequence[Reject], rows: int) -> None:
    """Raises for rejects that no dead letter could tell of, or of which nobody knows which records they are."""
    for reject in rejects:
        if not isinstance(reject, Reject) or not all(isinstance(text, str) for text in (*reject[:2], reject[3] or "")):
            raise TypeError(f"decode returned {shown(reject)}, not a Reject with a reason and a detail")
    places = [reject.record_index for reject in rejects]
    if places == [None] and not rows:
        return
    known = {place for place in places if isinstance(place, int) and 0 <= place < rows + len(rejects)}
    if len(known) < len(places):
        text = f"for {rows} rows and {len(rejects)} rejects, not a place of its own for each among all records"
        raise ValueError(f"decode returned record_index {shown(places)} {text}")


def _told(reject: Reject) -> Reject:
    """The same in texts that fit wherever they are told."""
    reason, detail, place, sqlstate = reject
    return Reject(_cut(reason, _WORD), _cut(detail, _SENTENCE), place, _cut(sqlstate, _WORD) if sqlstate else None)


def _cut(text: str, most: int) -> str:
    return clean(text[:most], [])


def _weigh(rows: Sequence[Row]) -> None:
    """Raises TooLarge for rows that share so much that they would be far more than the message was."""
    size = _STEP * sum(len(value) for row in rows[::_STEP] for value in row if isinstance(value, (bytes, str)))
    if size > ROWS_MAX:
        raise TooLarge(f"its {len(rows)} rows would be about {size >> 20} MiB, more than {ROWS_MAX >> 20}")
