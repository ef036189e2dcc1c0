"""The last resort of every decoder: a mistake of ours becomes a dead letter, not a worker that fails for ever."""

from __future__ import annotations

import functools
from collections.abc import Callable

from eventwriter.stream import Decoded, Message, Reject, Row
from eventwriter.values import shown


def total(decode: Callable[[Message], Decoded]) -> Callable[[Message], Decoded]:
    """``decode``, with any exception turned into a reject of the whole message with the reason ``internal``."""

    @functools.wraps(decode)
    def guarded(message: Message) -> Decoded:
        try:
            return decode(message)
        except MemoryError:  # says nothing about the message
            raise
        except Exception as error:  # noqa: BLE001
            detail = f"{type(error).__name__}: {shown(str(error), 400)}"
            return Decoded((), (Reject("internal", detail.encode("utf-8", "replace").decode().replace("\0", "?")),))

    return guarded


def quick_first(
    quick: Callable[[Message], Row | None],
) -> Callable[[Callable[[Message], Decoded]], Callable[[Message], Decoded]]:
    """Decorates a decoder with ``quick``, which gives the only row of a message, or None if that takes the decoder."""

    def decorate(decode: Callable[[Message], Decoded]) -> Callable[[Message], Decoded]:
        general = total(decode)
        new = tuple.__new__  # a Decoded without the detour through its keyword arguments

        @functools.wraps(decode)
        def either(message: Message) -> Decoded:
            try:
                row = quick(message)
            except Exception:  # noqa: BLE001 - a mistake of ours, on which the decoder has no part
                row = None
            return general(message) if row is None else new(Decoded, ((row,), (), ()))

        return either

    return decorate
