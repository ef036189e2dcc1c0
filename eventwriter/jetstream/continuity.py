"""Whether a stream continues what a ledger knows of it: one that was restored gives sequences out a second time."""

from __future__ import annotations

from datetime import datetime

from eventwriter.config.loading import StreamConfig
from eventwriter.errors import ConfigurationError
from eventwriter.jetstream.api import Request
from eventwriter.jetstream.consumer import StreamInfo, stream_info

_NANO = 1_000_000_000


async def has(request: Request, config: StreamConfig, stream: StreamInfo, sequence: int, time: int) -> bool:
    """Whether the stream still is one in which a message of this sequence has this time (nanoseconds since 1970).

    False for a stream that was restored to an earlier state, or lost its latest messages in a power failure: there
    the sequences are given out a second time. True also if the message is gone, so that nothing can be told.
    """
    if stream.last_sequence < sequence:
        return False
    answer = await request(f"STREAM.MSG.GET.{config.stream}", {"seq": sequence})
    if "error" in answer:
        return True
    return abs(datetime.fromisoformat(answer["message"]["time"]).timestamp() - time / _NANO) < 1e-3


async def check(request: Request, config: StreamConfig, highest: int, newest: tuple[int, int] | None) -> None:
    """Raises ConfigurationError for a stream that does not continue what a ledger knows up to the sequence ``highest``,
    with the sequence and the time of the ``newest`` message, if that is known. Asks for the stream anew."""
    if not highest:
        return
    stream = await stream_info(request, config)
    if stream.last_sequence < highest or (newest and not await has(request, config, stream, *newest)):
        raise restored(config, stream.last_sequence, highest)


def restored(config: StreamConfig, last: int, known: int) -> ConfigurationError:
    """What to tell of a stream that no longer continues what the ledger knows up to the sequence ``known``."""
    copy = f"eventwriter ledger copy --stream {config.name} --from {config.durable} --to NEW --through N"
    return ConfigurationError(
        f"stream {config.stream} was restored to an earlier state, or lost its latest messages: it does not continue "
        f"what the ledger knows up to sequence {known} (it ends at {last}), and new messages would be "
        f"taken for written ones: run `{copy}`, where N is the last sequence that the stream was restored with, and "
        f"set streams.{config.name}.durable to NEW"
    )
