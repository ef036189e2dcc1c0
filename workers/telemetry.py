"""TELEMETRY: measurements in JSON become rows of ``timeseries_metrics``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventwriter import values
from eventwriter.stream import Column, Decoded, Message, Row, Stream
from eventwriter.values import INT4_MAX, INT4_MIN, Unfit, dump_json
from workers._guard import total
from workers._json import records as flat
from workers._json.flat import Places
from workers._json.records import EXACT, Origin, moment, named
from workers._json.telemetry_fast import typed_rows

COLUMNS = (
    Column("timestamp", "timestamptz"),
    Column("gateway_id", "text", aliases=("poller_id",)),
    Column("agent_id", "text"),
    Column("metric_name", "text"),
    Column("metric_type", "text"),
    Column("device_id", "text"),
    Column("value", "double precision"),
    Column("unit", "text"),
    Column("tags", "jsonb"),
    Column("partition", "text"),
    Column("scale", "double precision"),
    Column("is_delta", "boolean"),
    Column("target_device_ip", "text"),
    Column("if_index", "integer"),
    Column("metadata", "jsonb"),
)

_PLACES = Places(
    ("timestamp",),
    ("poller_id", "pollerId"),
    ("gateway_id", "gatewayId"),
    ("agent_id", "agentId"),
    ("metric_name", "metricName", "name"),
    ("metric_type", "metricType", "type"),
    ("device_id", "deviceId"),
    ("value",),
    ("unit",),
    ("tags",),
    ("partition",),
    ("scale",),
    ("is_delta", "isDelta"),
    ("target_device_ip", "targetDeviceIp"),
    ("if_index", "ifIndex"),
    ("metadata",),
)
_FIRST_NAMES = tuple(names[0] for names in _PLACES.names)
_ONLY_FIRST_NAMES = frozenset(_FIRST_NAMES).issuperset


def _row(record: Mapping[str, Any], origin: Origin) -> Row:
    _, time, envelope, repairs = origin
    rest: dict[str, Any] = {}
    if _ONLY_FIRST_NAMES(record):
        given = [*map(record.get, _FIRST_NAMES)]
    else:
        given, rest = _PLACES.sort(record)
    (timestamp, poller, gateway, agent, name, kind, device, value, unit, tags, partition, scale, is_delta, target,
     if_index, metadata) = given  # fmt: skip

    if timestamp is not None:
        try:
            given_time = moment(timestamp)
        except Unfit as error:
            raise Unfit(error.reason, f"timestamp: {error}") from None
        if given_time is not None:
            time = given_time
    if type(value) is int and -EXACT <= value <= EXACT:
        value = float(value)
    elif type(value) is not float:
        if value is None:
            raise Unfit("missing_field", "value is missing")
        named("value", values.real, value)
        value = flat.real("value", value, rest, repairs)
    if poller is not None:
        if gateway is not None and (type(gateway) is not str or gateway != poller):
            rest["gateway_id"] = gateway
        gateway = poller
    if type(gateway) is not str:
        gateway = "unknown" if gateway is None else named("gateway_id", values.text, gateway)
    if type(name) is not str:
        name = "unknown" if name is None else named("metric_name", values.text, name)
    if type(kind) is not str:
        kind = "gauge" if kind is None else named("metric_type", values.text, kind)
    if agent is not None and type(agent) is not str:
        agent = flat.text("agent_id", agent, rest, repairs)
    if device is not None and type(device) is not str:
        device = flat.text("device_id", device, rest, repairs)
    if unit is not None and type(unit) is not str:
        unit = flat.text("unit", unit, rest, repairs)
    if partition is not None and type(partition) is not str:
        partition = flat.text("partition", partition, rest, repairs)
    if target is not None and type(target) is not str:
        target = flat.text("target_device_ip", target, rest, repairs)
    if type(scale) is int and -EXACT <= scale <= EXACT:
        scale = float(scale)
    elif scale is not None and type(scale) is not float:
        scale = flat.real("scale", scale, rest, repairs)
    if is_delta is None:
        is_delta = False
    elif type(is_delta) is not bool:
        is_delta = flat.boolean("is_delta", is_delta, rest, repairs)
    if if_index is not None and (type(if_index) is not int or not INT4_MIN <= if_index <= INT4_MAX):
        if_index = flat.integer("if_index", if_index, INT4_MIN, INT4_MAX, rest, repairs)
    if envelope is None and type(metadata) is dict and not rest:
        packed: bytes | None = dump_json(metadata)
    else:
        packed = flat.metadata_of(metadata, rest, envelope)
    return (
        time,
        gateway,
        agent,
        name,
        kind,
        device,
        value,
        unit,
        dump_json(tags) if type(tags) is dict else flat.jsonb(tags),
        partition,
        scale,
        is_delta,
        target,
        if_index,
        packed,
    )


@total
def decode(message: Message) -> Decoded:
    """The rows of one message: a measurement, an array of them, or CloudEvents around either."""
    return flat.decode_records(message, _row)


STREAM = Stream(
    name="TELEMETRY",
    subjects=("telemetry.>",),
    table="timeseries_metrics",
    columns=COLUMNS,
    decode=decode,
    quick=typed_rows,
)
