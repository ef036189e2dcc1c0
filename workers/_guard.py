"""The last resort of every decoder: a mistake of ours becomes a dead letter, not a worker that fails for ever."""

from __future__ import annotations

import functools
from collections.abc import Callable

from eventwriter.stream import Decoded, Message, Reject
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
