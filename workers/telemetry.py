"""TELEMETRY: measurements in JSON become rows of ``timeseries_metrics``."""

from __future__ import annotations

from eventwriter.stream import Column, Stream
from workers._json.fast_table import fast_path_of, row_of
from workers._json.records import Kind, decoder
from workers._json.series_key import series_key_of
from workers._json.table import Field, Table

TABLE = Table(
    Field("timestamp", "timestamptz", must=True),
    Field("gateway_id", "text", default="unknown", must=True, aliases=("poller_id",)),
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
    others=[("poller_id", "pollerId")],
)

STREAM = Stream(
    name="TELEMETRY",
    subjects=("telemetry.>",),
    table="timeseries_metrics",
    columns=TABLE.columns,
    decode=decoder(Kind(row_of(TABLE, "timestamp"))),
    fast=fast_path_of(TABLE, b'"gateway_id"'),
    computed=(Column("series_key", "text", core=False, of=series_key_of(TABLE.at)),),
)
