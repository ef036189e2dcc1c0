"""One measurement in a JSON object, when every value has its expected type and every key its first name."""

from __future__ import annotations

import msgspec

from eventwriter.stream import Message, Row
from eventwriter.values import EPOCH, INT4_MAX, INT4_MIN, Unfit
from workers._json import EXACT, moment
from workers._typed import fitted, json_object

_ABSENT = msgspec.Raw(b"null")


class Measurement(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The keys of such a record."""

    timestamp: str | int
    gateway_id: str
    metric_name: str
    metric_type: str
    value: int | float
    agent_id: str | None = None
    device_id: str | None = None
    unit: str | None = None
    tags: msgspec.Raw = _ABSENT
    partition: str | None = None
    scale: int | float | None = None
    is_delta: bool = False
    target_device_ip: str | None = None
    if_index: int | None = None
    metadata: msgspec.Raw = _ABSENT


_DECODER = msgspec.json.Decoder(Measurement)


def typed_row(message: Message) -> Row | None:
    """The row of a message that is one such record; None for every other message."""
    _, payload, _, received, headers = message
    if payload[:1] != b"{" or headers or b'"gateway_id"' not in payload:
        return None
    record = fitted(_DECODER, payload)
    if record is None:
        return None
    value, scale, if_index = record.value, record.scale, record.if_index
    if type(value) is int:
        if not -EXACT <= value <= EXACT:
            return None
        value = float(value)
    if type(scale) is int:
        if not -EXACT <= scale <= EXACT:
            return None
        scale = float(scale)
    if if_index is not None and not INT4_MIN <= if_index <= INT4_MAX:
        return None
    tags, metadata = _nested(record.tags), _nested(record.metadata)
    if tags == b"" or metadata == b"":
        return None
    try:
        time = moment(record.timestamp)
    except Unfit:
        return None
    return (
        received // 1000 - EPOCH if time is None else time,
        record.gateway_id,
        record.agent_id,
        record.metric_name,
        record.metric_type,
        record.device_id,
        value,
        record.unit,
        tags,
        record.partition,
        scale,
        record.is_delta,
        record.target_device_ip,
        if_index,
        metadata,
    )


def _nested(raw: msgspec.Raw) -> bytes | None:
    """The text of a nested object; None for null; nothing (``b""``) if it must go the general way."""
    if raw is _ABSENT:
        return None
    text = bytes(raw)
    return None if text == b"null" else json_object(text) or b""
