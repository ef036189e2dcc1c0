"""The last resort of every decoder: a mistake of ours becomes a dead letter, not a worker that fails for ever."""

from __future__ import annotations

import functools
from collections.abc import Callable

from eventwriter.stream import Decoded, Message, Reject
from eventwriter.values import shown
from workers._limits import TooLarge


def total(decode: Callable[[Message], Decoded]) -> Callable[[Message], Decoded]:
    """``decode``, with any exception turned into a reject of the whole message: TooLarge, which is meant for that, with
    the reason ``too_large``, any other with ``internal``."""

    @functools.wraps(decode)
    def guarded(message: Message) -> Decoded:
        try:
            return decode(message)
        except TooLarge as error:
            return Decoded((), (Reject("too_large", str(error)),))
        except MemoryError:  # says nothing about the message
            raise
        except Exception as error:  # noqa: BLE001
            detail = f"{type(error).__name__}: {shown(str(error), 400)}"
            return Decoded((), (Reject("internal", detail.encode("utf-8", "replace").decode().replace("\0", "?")),))

    return guarded
