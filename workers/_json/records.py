"""Messages that hold flat JSON records: one object, an array of them, CloudEvents around either; and their values.

A record becomes a row or a reject of its own; its siblings are not touched. A value that does not fit its column is
kept among the metadata; in a column that must have a value it rejects the record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eventwriter import values
from eventwriter.stream import Decoded, Message, Reject, Row
from eventwriter.values import EPOCH, Unfit, dump_json, shown
from workers._json import flat
from workers._json.cloudevents import data_of, envelope_in, envelope_of, is_event
from workers._json.count import EVENTS, Shape
from workers._json.payload import read_json
from workers._limits import COUNTED_FROM, RECORDS_MAX, Room, too_many

_MAX_DEPTH = 8
"""Envelopes within envelopes."""
_NO_TIME = -63_082_281_600_000_000
"""0001-01-01T00:00:00Z, which Go writes for a time that was never set."""
SHARED_MAX = 4096
"""Bytes of JSON that every record of a message may get from what is around it: with many records it multiplies."""
EXACT = 2**53
"""Integers up to this size are exact as float64."""


Origin = tuple[int, int, Mapping[str, Any] | None, list[str]]
"""What a record has besides itself: when its message was received, as timestamptz; what stands in for a missing time,
that of the CloudEvent around the record or else the former; the context attributes of that event; the list of repairs.
A bare tuple, for one is made per message."""
RowOf = Callable[[Mapping[str, Any], Origin], Row]
"""The row of one record; raises Unfit if it cannot become one."""
Expand = Callable[[Mapping[str, Any]], Sequence[Any] | None]
"""The records that an object stands for, if it stands for several; None if it is a record."""


def decode_records(
    message: Message,
    row_of: RowOf,
    *,
    group: str | None = None,
    expand: Expand | None = None,
    shape: Shape = EVENTS,
) -> Decoded:
    """What a message holds: a row or a reject per record, in order. Raises TooLarge for too many of them.

    ``expand`` is asked about objects that have the key ``group``; ``shape`` says the same for counting.
    """
    _, payload, _, nanos, headers = message
    repairs: list[str] = []
    received = nanos // 1000 - EPOCH
    origin: Origin = (received, received, None, repairs)
    if payload[:1] == b"{" and headers is None and len(payload) <= COUNTED_FROM:  # nearly always one record
        try:
            value = values.parse_json(payload, repairs)
            if "specversion" not in value and (group is None or group not in value):
                return Decoded((row_of(value, origin),), (), repairs)
        except Unfit:
            repairs.clear()
    records = _Records(row_of, group, expand, shape)
    try:
        if headers is not None and (envelope := envelope_in(headers, repairs)):
            origin = _within(origin, envelope)
        records.take(read_json(payload, repairs, shape, records.room)[1], origin, 0)
    except Unfit as error:
        return Decoded((), (Reject(error.reason, str(error)[:500]),), repairs)
    return Decoded(records.rows, records.rejects, repairs)


class _Records:
    """Collects the records of a message. Its methods raise Unfit only before they have added any."""

    __slots__ = ("expand", "group", "many", "rejects", "room", "row_of", "rows", "shape")

    def __init__(self, row_of: RowOf, group: str | None, expand: Expand | None, shape: Shape) -> None:
        self.row_of = row_of
        self.group = group
        self.expand = expand
        self.shape = shape
        self.room = Room()
        self.many = False
        self.rows: list[Row] = []
        self.rejects: list[Reject] = []

    def take(self, value: Any, origin: Origin, depth: int) -> None:
        """The records of a JSON value."""
        if type(value) is dict:
            if "specversion" in value and is_event(value):
                self.open(value, origin, depth + 1)
            elif self.expand is not None and self.group in value and (many := self.expand(value)) is not None:
                self.take_each(many, origin, depth)
            else:
                self.add(value, origin)
        elif type(value) is list:
            self.take_each(value, origin, depth)
        else:
            raise Unfit("malformed", f"{shown(value)} is not an object")

    def take_each(self, elements: Sequence[Any], origin: Origin, depth: int) -> None:
        if len(self.rows) + len(self.rejects) + len(elements) > RECORDS_MAX:
            raise too_many()
        if len(elements) > flat.MANY and not self.many:
            self.many, self.row_of = True, flat.trimming(self.row_of)
        others = origin
        received, time, envelope, repairs = origin
        if envelope is not None and len(dump_json(envelope)) > SHARED_MAX:
            others = (received, time, None, repairs)  # the envelope is kept with the first
        for element in elements:
            index = len(self.rows) + len(self.rejects)
            if index >= RECORDS_MAX:  # some were in texts of their own
                raise too_many()
            try:
                if type(element) is not dict:
                    raise Unfit("malformed", f"{shown(element)} is not an object")
                self.take(element, origin, depth)
            except Unfit as error:
                self.rejects.append(Reject(error.reason, str(error)[:500], index))
            origin = others

    def open(self, event: Mapping[str, Any], origin: Origin, depth: int) -> None:
        """The records in a CloudEvent."""
        if depth > _MAX_DEPTH:
            raise Unfit("malformed", f"more than {_MAX_DEPTH} envelopes within each other")
        data = data_of(event, origin[3], self.shape, self.room)
        self.take(data, _within(origin, envelope_of(event)), depth)

    def add(self, record: Mapping[str, Any], origin: Origin) -> None:
        try:
            self.rows.append(self.row_of(record, origin))
        except Unfit as error:
            self.rejects.append(Reject(error.reason, str(error)[:500], len(self.rows) + len(self.rejects)))


def _within(origin: Origin, envelope: Mapping[str, Any]) -> Origin:
    """The origin of a record in a CloudEvent, whose time is nearer to the record than the broker's."""
    received, time, outer, repairs = origin
    try:
        nearer = moment(envelope.get("time"))
        time = time if nearer is None else nearer
    except Unfit:
        repairs.append("bad_time")
    return received, time, envelope if outer is None else {**outer, **envelope}, repairs


# --- values: what fits its column goes in; what does not is kept ------------------------------------------------


def moment(value: Any) -> int | None:
    """A time of any form as timestamptz; None if there is none: null, "", 0, or the zero of Go. Else raises Unfit."""
    if type(value) is str:
        if value[10:11] == "T":
            micros = values.time_from_text(value)
            return None if micros == _NO_TIME else micros
        if value in ("", "0"):
            return None
    elif value is None or (value == 0 and value is not False):
        return None
    return values.time(value)


def named(name: str, convert: Callable[[Any], Any], value: Any) -> Any:
    """``convert(value)`` for a column that must have a value: the Unfit that it may raise names the field."""
    try:
        return convert(value)
    except Unfit as error:
        raise Unfit(error.reason, f"{name}: {error}") from None


def text(name: str, value: Any, rest: dict[str, Any], repairs: list[str]) -> str | None:
    """Text, or None with the original in ``rest``."""
    return None if value is None else _fitting(name, values.text, value, rest, repairs)


def boolean(name: str, value: Any, rest: dict[str, Any], repairs: list[str]) -> bool | None:
    """A bool, or None with the original in ``rest``."""
    return None if value is None else _fitting(name, values.boolean, value, rest, repairs)


def real(name: str, value: Any, rest: dict[str, Any], repairs: list[str]) -> float | None:
    """A float, or None with the original in ``rest``; an integer that float64 cannot hold is kept there as text."""
    if value is None:
        return None
    number: float | None = _fitting(name, values.real, value, rest, repairs)
    if type(value) is int and not -EXACT <= value <= EXACT and number is not None and int(number) != value:
        flat.keep_original(rest, name, str(value), repairs, "rounded")
    return number


def integer(name: str, value: Any, low: int, high: int, rest: dict[str, Any], repairs: list[str]) -> int | None:
    """An integer; beyond low…high it is the nearest of them, with the exact number as text in ``rest``."""
    if value is None:
        return None
    try:
        return values.integer(value, low, high)
    except Unfit as error:
        if error.reason != "out_of_range":
            flat.keep_original(rest, name, value, repairs, error.reason)
            return None
    exact = value.strip() if isinstance(value, str) else str(int(value))
    flat.keep_original(rest, name, exact, repairs, "clamped")
    return low if exact.startswith("-") else high


def jsonb(value: Any) -> bytes | None:
    """JSON for a jsonb column, from JSON or from text that holds some; other text is a JSON string, "" is None."""
    if value is None or value == "":
        return None
    return dump_json(flat.parsed(value))


def metadata_of(metadata: Any, rest: Mapping[str, Any], envelope: Mapping[str, Any] | None) -> bytes | None:
    """Metadata, with what else is to be kept: ``rest``, and the CloudEvent's context attributes as ``cloudevent``."""
    if not rest and envelope is None:
        return jsonb(metadata)
    found = flat.parsed(metadata)
    if found is None or found == "":
        found = {}
    elif type(found) is not dict:
        found = {"metadata": found}
    if envelope is not None:
        rest = {**rest, "cloudevent": envelope}
    return dump_json(flat.merged(found, rest))


def _fitting(name: str, convert: Callable[[Any], Any], value: Any, rest: dict[str, Any], repairs: list[str]) -> Any:
    try:
        return convert(value)
    except Unfit as error:
        flat.keep_original(rest, name, value, repairs, error.reason)
        return None
