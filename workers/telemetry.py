"""TELEMETRY: measurements in JSON become rows of ``timeseries_metrics``."""

from __future__ import annotations

from hashlib import md5

import msgspec

from eventwriter.stream import Column, Row, Stream
from eventwriter.values import dump_json, parse_json
from workers._json.fast_table import fast_path_of, row_of
from workers._json.records import Kind, decoder
from workers._json.table import POLLER, Field, Table

TABLE = Table(
    Field("timestamp", "timestamptz", must=True),
    Field("gateway_id", "text", first=POLLER, default="unknown", must=True, aliases=("poller_id",)),
    Field("agent_id", "text"),
    Field("metric_name", "text", ("name",), default="unknown", must=True),
    Field("metric_type", "text", ("type",), default="gauge", must=True),
    Field("device_id", "text"),
    Field("value", "double precision", must=True, required=True),
    Field("unit", "text"),
    Field("tags", "jsonb"),
    Field("partition", "text"),
    Field("scale", "double precision"),
    Field("is_delta", "boolean", default=False),
    Field("target_device_ip", "text"),
    Field("if_index", "integer", clamp=True),
    Field("metadata", "jsonb", own=True),
)
_IN_KEY = ("metric_type", "metric_name", "partition", "agent_id", "device_id", "target_device_ip", "if_index")
_NOT_IN_KEY = frozenset(("available", "metric", "packet_loss"))
"""Tags that change from one measurement of a series to the next."""
_BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
"""White space of Unicode, which ends where that of Python goes on."""
_tags_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _series_key(row: Row) -> str:
    """The key of a row's series as the makers of tables that have it compute it: the MD5 of the components that the row
    has, joined by ``|``; each is its name and its value, both with their length in bytes."""
    values = [(name, row[TABLE.at[name]]) for name in _IN_KEY]
    components = [(name, str(value).strip(_BLANKS)) for name, value in values if value is not None and value != ""]
    components += _tags(row[TABLE.at["tags"]] or b"{}")
    texts = [f"{len(name.encode())}:{name}={len(value.encode())}:{value}" for name, value in components]
    return md5("|".join(texts).encode(), usedforsecurity=False).hexdigest()


def _tags(text: bytes) -> list[tuple[str, str]]:
    try:
        tags = _tags_of(text)
    except msgspec.MsgspecError:  # no object: tags have no names then
        return []
    told = [(f"tag:{name}", _told(bytes(tags[name])).strip(_BLANKS)) for name in sorted(tags.keys() - _NOT_IN_KEY)]
    return [(name, value) for name, value in told if value]


def _told(text: bytes) -> str:
    """A value of JSON as those who made the tables write it."""
    if text == b"null":
        return "nil"
    if text.startswith(b'"'):
        return msgspec.json.decode(text, type=str)
    if text.startswith((b"[", b"{")):
        return dump_json(parse_json(text, [])).decode()
    if text.isalpha() or text.lstrip(b"-").isdigit():  # true, false, an integer
        return "0" if text == b"-0" else text.decode()
    return f"{float(text):.20e}"


STREAM = Stream(
    name="TELEMETRY",
    subjects=("telemetry.>",),
    table="timeseries_metrics",
    columns=TABLE.columns,
    decode=decoder(Kind(row_of(TABLE, "timestamp"))),
    fast=fast_path_of(TABLE, b'"gateway_id"'),
    computed=(Column("series_key", "text", core=False, of=_series_key),),
)
