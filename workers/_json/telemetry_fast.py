"""One measurement in a JSON object, when every value has its expected type and every key its first name."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from eventwriter.stream import Message, Row
from eventwriter.values import INT4_MAX, INT4_MIN
from workers._json.fast import common_time, fitted, without_large_exponents
from workers._json.records import EXACT

_ABSENT = msgspec.Raw(b"null")


class Measurement(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The keys of such a record."""

    timestamp: str
    gateway_id: str
    metric_name: str
    metric_type: str
    value: float
    agent_id: str | None = None
    device_id: str | None = None
    unit: str | None = None
    tags: msgspec.Raw = _ABSENT
    partition: str | None = None
    scale: float | None = None
    is_delta: bool = False
    target_device_ip: str | None = None
    if_index: int | None = None
    metadata: msgspec.Raw = _ABSENT


_DECODER = msgspec.json.Decoder(Measurement)


@without_large_exponents
def typed_rows(messages: Sequence[Message], nested: list[bytes]) -> list[Row | None]:
    """The row of each message that is one such record; None for every other message."""
    rows: list[Row | None] = []
    for record in fitted(_DECODER, b'"gateway_id"', messages):
        rows.append(None)
        if record is None:
            continue
        value, scale, if_index, raw_tags, raw_metadata = (
            record.value,
            record.scale,
            record.if_index,
            record.tags,
            record.metadata,
        )
        # Integers are read as float too: below this they are exact.
        if (
            not -EXACT < value < EXACT
            or (scale is not None and not -EXACT < scale < EXACT)
            or (if_index is not None and not INT4_MIN <= if_index <= INT4_MAX)
        ):
            continue
        tags = metadata = None
        if raw_tags is not _ABSENT:
            tags = bytes(raw_tags)
            if tags[:1] == b"{":
                nested.append(tags)
            elif tags == b"null":
                tags = None
            else:
                continue
        if raw_metadata is not _ABSENT:
            metadata = bytes(raw_metadata)
            if metadata[:1] == b"{":
                nested.append(metadata)
            elif metadata == b"null":
                metadata = None
            else:
                continue
        time = common_time(record.timestamp)
        if time is None:
            continue
        rows[-1] = (
            time,
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
    return rows
