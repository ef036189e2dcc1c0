"""From deliveries to a batch: what the numbers on them (ADR-15 of the NATS architecture) tell.

The reply subject of a delivery is ``$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<timestamp>.
<pending>``; a server's second version puts domain and account hash before the stream and a random token at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import lt

import orjson

from eventwriter.stream import Batch, Message
from eventwriter.wire import Delivery, parse_headers

_PLAIN = 9
"""Tokens of a reply subject of the first version."""
_NUMBERS = 5
"""Those of them that are numbers: the last."""


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

    def batch(self, deliveries: Sequence[Delivery]) -> Batch:
        """The batch of at least one delivery, with the first sequence that each accounts for."""
        count = len(deliveries)
        subjects, payloads, receipts, headers = zip(*deliveries, strict=True)
        delivered, sequences, numbers, times = _numbers(receipts)
        first_deliveries = delivered.count(1)
        span = None
        if (
            first_deliveries == count
            and numbers[0] > self._last
            and _consecutive(numbers)
            and (_consecutive(sequences) or all(map(lt, sequences, sequences[1:])))
        ):
            firsts = self._in_order(numbers, sequences)
            span = firsts[0], sequences[-1]
        else:
            firsts = self._one_by_one(delivered, numbers, sequences)
        new = tuple.__new__  # a Message without the detour through its keyword arguments
        texts = [subject.decode("utf-8", "replace") for subject in subjects]
        parsed = headers if headers.count(None) == count else [h and parse_headers(h) for h in headers]
        messages = [new(Message, fields) for fields in zip(texts, payloads, sequences, times, parsed, strict=True)]
        return Batch(messages, firsts, receipts, sum(map(len, payloads)), count - first_deliveries, span)

    def _in_order(self, numbers: list[int], sequences: list[int]) -> list[int]:
        """First deliveries in a row: the consumer found nothing of ours between them."""
        first = sequences[0]
        if self._previous is not None and self._previous[0] + 1 == numbers[0] and self._previous[1] < first:
            first = self._previous[1] + 1
        self._last = numbers[-1]
        self._previous = numbers[-1], sequences[-1]
        return [first, *[sequence + 1 for sequence in sequences[:-1]]]

    def _one_by_one(self, delivered: list[int], numbers: list[int], sequences: list[int]) -> list[int]:
        firsts = []
        previous = self._previous
        for times, number, sequence in zip(delivered, numbers, sequences, strict=True):
            if number <= self._last:
                self._restarted()
                previous = None
            self._last = number
            first = sequence
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


def _numbers(receipts: Sequence[bytes]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Of each delivery, how often it was made, its stream sequence, its consumer sequence and its time."""
    head = _head(receipts[0])
    tails = b",".join(receipts).replace(b"," + head, b",")[len(head) :]
    # What is left of reply subjects of one consumer is five numbers each, and none is read sooner than as JSON.
    with suppress(orjson.JSONDecodeError):
        found = orjson.loads(b"[" + tails.replace(b".", b",") + b"]")
        if len(found) == _NUMBERS * len(receipts):
            return found[::5], found[1::5], found[2::5], found[3::5]
    each = [[*map(int, receipt[len(_head(receipt)) :].split(b".")[:4])] for receipt in receipts]
    delivered, sequences, numbers, times = map(list, zip(*each, strict=True))
    return delivered, sequences, numbers, times


def pending(receipt: bytes) -> int:
    """How many messages the consumer still had for us after this one."""
    return int(receipt[len(_head(receipt)) :].split(b".")[4])


def _head(receipt: bytes) -> bytes:
    """What comes before how often delivered, stream sequence, consumer sequence, time: the same for a consumer."""
    place = 4 if receipt.count(b".") == _PLAIN - 1 else 6
    return b".".join(receipt.split(b".", place)[:place]) + b"."
