"""From deliveries to a batch: what the numbers on them (ADR-15 of the NATS architecture) tell.

The reply subject of a delivery is ``$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<timestamp>.
<pending>``; a server's second version puts domain and account hash before the stream and a random token at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from operator import lt

import orjson

from eventwriter.jetstream.wire import Delivery, headers_of
from eventwriter.stream import Batch, LateHeaders, Message

_PLAIN = 9
"""Tokens of a reply subject of the first version."""
_BESIDE = 512
"""Bytes of subject, reply subject and headers that deliveries may have on average without counting."""
_NUMBERS = 5
"""Those of them that are numbers: the last."""


@dataclass(slots=True)
class Portion:
    """Deliveries that arrived together, at least one, with all that their reply subjects tell."""

    messages: list[Message]
    reply_subjects: bytes
    """Their reply subjects, a line each."""
    delivered: Sequence[int]
    """How often each was delivered."""
    numbers: Sequence[int]
    """Their consumer sequences."""
    size: int
    """Bytes of payload."""
    cost: int
    """Bytes as the server counts them against those that a pull asks for; unknown, 0, of what was split."""
    pending: int
    """How many messages the consumer still had for us after the last."""
    in_order: bool
    """All delivered for the first time, consumer sequences one after the other, stream sequences rising."""
    hollow: bool = False
    """Whether one of them may have lost its payload on the way; see ``is_hollow``."""
    heavy: bool = False
    """Whether so much comes beside the payloads that ``size`` has that, too."""

    def sizes(self, end: int) -> Iterator[int]:
        """Of each message before ``end``, its part of ``size``."""
        messages = self.messages[:end]
        return map(_heavy_size, messages) if self.heavy else (len(message.payload) for message in messages)

    def split(self, count: int) -> tuple[Portion, Portion]:
        """The first ``count``, fewer than all, and the rest."""
        lines = self.reply_subjects.split(b"\n")
        halves = []
        first = sum(self.sizes(count))
        for part, size in ((slice(count), first), (slice(count, None), self.size - first)):
            replies = b"\n".join(lines[part])
            half = replace(self, messages=self.messages[part], reply_subjects=replies, size=size, cost=0)
            half.delivered, half.numbers = self.delivered[part], self.numbers[part]
            halves.append(half)
        return halves[0], halves[1]


def read(deliveries: Sequence[Delivery], size: int) -> Portion:
    """What at least one delivery tells; ``size`` is the bytes of their payloads.

    Raises ValueError if a reply subject lacks the numbers. Done as soon as they arrive and a few hundred at a time:
    later, and on another core, each would have to be fetched from memory again.
    """
    subjects, payloads, replies, headers = zip(*deliveries, strict=True)
    lines = b"\n".join(replies)
    delivered, sequences, numbers, times = _numbers(replies, lines)
    count = len(deliveries)
    try:
        consecutive = _consecutive(numbers)
    except TypeError:  # JSON has more than whole numbers
        raise ValueError(f"no whole number in {replies[0].decode(errors='replace')}") from None
    in_order = (
        consecutive
        and delivered.count(1) == count
        and (_consecutive(sequences) or all(map(lt, sequences, sequences[1:])))
    )
    new = tuple.__new__  # a Message without the detour through its keyword arguments
    texts = [subject.decode("utf-8", "replace") for subject in subjects]
    cost = size + len(lines) - (count - 1) + sum(map(len, subjects))
    parsed: Sequence[Mapping[str, str] | None] = headers
    if headers.count(None) < count:
        parsed = [headers_of(block) if block else None for block in headers]
        cost += sum(len(block) for block in headers if block)
    heavy = cost - size > _BESIDE * count
    messages = [new(Message, fields) for fields in zip(texts, payloads, sequences, times, parsed, strict=True)]
    return Portion(
        messages,
        lines,
        delivered,
        range(numbers[0], numbers[0] + count) if consecutive else numbers,
        sum(map(_heavy_size, messages)) if heavy else size,
        cost,
        _pending(replies[-1]),
        in_order,
        not all(payloads) and any(map(is_hollow, messages)),
        heavy,
    )


def _heavy_size(message: Message) -> int:
    """Bytes of a message with all that comes beside its payload."""
    headers = message.headers
    beside = len(headers.block) if isinstance(headers, LateHeaders) else _BESIDE
    return len(message.payload) + len(message.subject) + beside


def is_hollow(message: Message) -> bool:
    """Whether it looks like one that a consumer with ``headers_only`` delivers: without its payload, but with its size.

    Whoever publishes again what such a consumer delivered makes an empty message that looks the same.
    """
    return not message.payload and (message.headers or {}).get("Nats-Msg-Size", "0") != "0"


class Sequencer:
    """Follows one consumer's deliveries in the order of their arrival."""

    def __init__(self, restarted: Callable[[], None]) -> None:
        """``restarted`` is called when the consumer counts from the beginning again, and may raise."""
        self._restarted = restarted
        self._previous: tuple[int, int] | None = None
        self._last = 0

    def interrupted(self) -> None:
        """What follows may not continue what came before."""
        self._previous = None

    def batch(self, portions: Sequence[Portion]) -> Batch:
        """The batch of at least one portion, with the first sequence that each message accounts for."""
        firsts = span = None
        if self._continues(portions):
            span = self._in_order(portions)
        else:
            firsts = [first for portion in portions for first in self._one_by_one(portion)]
        messages = [*chain.from_iterable(portion.messages for portion in portions)]
        return Batch(
            messages,
            firsts,
            [portion.reply_subjects for portion in portions],
            sum(portion.size for portion in portions),
            sum(len(portion.messages) - portion.delivered.count(1) for portion in portions),
            span,
        )

    def _continues(self, portions: Sequence[Portion]) -> bool:
        number, sequence = portions[0].numbers[0] - 1, 0
        if number < self._last:
            return False
        for portion in portions:
            messages = portion.messages
            if not portion.in_order or portion.numbers[0] != number + 1 or messages[0].sequence <= sequence:
                return False
            number, sequence = portion.numbers[-1], messages[-1].sequence
        return True

    def _in_order(self, portions: Sequence[Portion]) -> tuple[int, int]:
        """First deliveries in a row: the consumer found nothing of ours between them."""
        number, first = portions[0].numbers[0], portions[0].messages[0].sequence
        if self._previous is not None and self._previous[0] + 1 == number and self._previous[1] < first:
            first = self._previous[1] + 1
        self._last, last = portions[-1].numbers[-1], portions[-1].messages[-1].sequence
        self._previous = self._last, last
        return first, last

    def _one_by_one(self, portion: Portion) -> list[int]:
        firsts = []
        previous = self._previous
        for times, number, message in zip(portion.delivered, portion.numbers, portion.messages, strict=True):
            if number <= self._last:
                self._restarted()
                previous = None
            self._last = number
            first = sequence = message.sequence
            if times == 1:
                if previous is not None and previous[0] + 1 == number and previous[1] < sequence:
                    first = previous[1] + 1
                previous = (number, sequence)
            else:
                previous = None
            firsts.append(first)
        self._previous = previous
        return firsts


def _consecutive(numbers: list[int]) -> bool:
    return numbers == [*range(numbers[0], numbers[0] + len(numbers))]


def _numbers(replies: Sequence[bytes], lines: bytes) -> tuple[list[int], list[int], list[int], list[int]]:
    """Of each delivery, how often it was made, its stream sequence, its consumer sequence and its time.

    ``lines`` are the reply subjects, a line each.
    """
    head = _head(replies[0])
    tails = lines.replace(b"\n" + head, b",")[len(head) :]
    # What is left of reply subjects of one consumer is five numbers each, and none is read sooner than as JSON.
    with suppress(orjson.JSONDecodeError):
        found = orjson.loads(b"[" + tails.replace(b".", b",") + b"]")
        if len(found) == _NUMBERS * len(replies):
            return found[::5], found[1::5], found[2::5], found[3::5]
    each = [[*map(int, reply[len(_head(reply)) :].split(b".")[:4])] for reply in replies]
    delivered, sequences, numbers, times = map(list, zip(*each, strict=True))
    return delivered, sequences, numbers, times


def made(reply: bytes) -> tuple[int, int]:
    """How often a delivery was made, and its stream sequence."""
    delivered, sequence = reply[len(_head(reply)) :].split(b".")[:2]
    return int(delivered), int(sequence)


def _pending(reply: bytes) -> int:
    _, _, _, _, pending = reply[len(_head(reply)) :].split(b".")[:5]
    return int(pending)


def _head(reply: bytes) -> bytes:
    """What comes before how often delivered, stream sequence, consumer sequence, time: the same for a consumer."""
    place = 4 if reply.count(b".") == _PLAIN - 1 else 6
    return b".".join(reply.split(b".", place)[:place]) + b"."
