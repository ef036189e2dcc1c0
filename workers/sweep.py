"""SWEEP: what network sweeps found, in JSON, becomes rows of ``sweep_host_states``; a summary is a row per host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventwriter.stream import Stream
from eventwriter.values import Unfit
from workers._json.convert import keep, same
from workers._json.fast_table import fast_path_of, row_of
from workers._json.records import Kind, Origin, Records, decoder
from workers._json.table import POLLER, Field, Table
from workers._limits import SHARED_MAX, is_large

TABLE = Table(
    Field("host_ip", "text", ("ip",), must=True, required=True, blank=False),
    Field("gateway_id", "text", first=POLLER, default="unknown", must=True, aliases=("poller_id",)),
    Field("agent_id", "text", default="unknown", must=True),
    Field("partition", "text", default="default", must=True),
    Field("network_cidr", "text", blank=False),
    Field("hostname", "text", blank=False),
    Field("mac", "text", blank=False),
    Field("icmp_available", "boolean"),
    Field("icmp_response_time_ns", "bigint", clamp=True),
    Field("icmp_packet_loss", "double precision"),
    Field("tcp_ports_scanned", "jsonb"),
    Field("tcp_ports_open", "jsonb"),
    Field("port_scan_results", "jsonb"),
    Field("last_sweep_time", "timestamptz", must=True),
    Field("first_seen", "timestamptz"),
    Field("metadata", "jsonb", own=True),
    Field("received_at", "timestamptz", given=False, core=False),
)
_HOST_NAMES = TABLE.fields[0].names
_PLACE_OF = TABLE.places.place_of
_COLUMN_OF = {"network": "network_cidr", "last_sweep": "last_sweep_time"}
"""What a summary calls otherwise than its hosts do."""
_ICMP = (("available", "icmp_available"), ("round_trip", "icmp_response_time_ns"), ("packet_loss", "icmp_packet_loss"))


class _Hosts(Kind):
    """Hosts, and the summaries of a sweep that hold some."""

    def take_group(self, records: Records, value: Mapping[str, Any], origin: Origin, depth: int) -> bool:
        if type(value["hosts"]) is not list or any(name in value for name in _HOST_NAMES):
            return False
        records.check(len(value["hosts"]))
        records.take_each(_hosts(value), origin, depth)
        return True


def _hosts(summary: Mapping[str, Any]) -> list[Any]:
    """The hosts of a SweepSummary as records of their own.

    Its other keys are kept with every host, or, if they are large, with the first. Raises Unfit("too_large") if what
    fills the columns of all hosts is.
    """
    said = {name: value for name, value in summary.items() if name != "hosts"}
    for name, column in _COLUMN_OF.items():
        if name in said and said.get(column) is None:
            said[column] = said.pop(name)
    common = {name: value for name, value in said.items() if name in _PLACE_OF}
    others = {name: value for name, value in said.items() if name not in common}
    count = len(summary["hosts"])
    if is_large(common, count):
        raise Unfit("too_large", f"what a summary says of all its hosts is more than {SHARED_MAX} bytes")
    shared = {} if is_large(others, count) else others
    return [
        _host_record(host, common, shared if place else others) if type(host) is dict else host
        for place, host in enumerate(summary["hosts"])
    ]


def _host_record(host: Mapping[str, Any], common: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    own = {_PLACE_OF[name] for name, value in host.items() if value is not None and name in _PLACE_OF}
    lent = {name: value for name, value in common.items() if _PLACE_OF[name] not in own}
    record = {**lent, **{name: value for name, value in host.items() if value is not None or name not in lent}}
    hidden = {name: value for name, value in common.items() if name not in lent and not same(host.get(name), value)}
    if hidden:
        others = {**others, **hidden}
    if record.get("host_ip") is None:
        record["host_ip"] = record.pop("host", None)
    if record.get("port_scan_results") is None and "port_results" in record:
        record["port_scan_results"] = record.pop("port_results")
    icmp = record.get("icmp_status")
    if type(icmp) is dict:
        record["icmp_status"] = left = dict(icmp)
        for name, column in _ICMP:
            if record.get(column) is None and name in left:
                record[column] = left.pop(name)
        if not left:
            del record["icmp_status"]
    if others:
        if record.get("sweep") is None:
            record["sweep"] = others
        else:
            keep(record, "sweep", others)
    return record


STREAM = Stream(
    name="SWEEP",
    subjects=("sweep.>",),
    table="sweep_host_states",
    columns=TABLE.columns,
    decode=decoder(_Hosts(row_of(TABLE, "last_sweep_time"), ("hosts",))),
    fast=fast_path_of(TABLE, b'"last_sweep_time"'),
    key=("host_ip", "gateway_id", "partition", "last_sweep_time"),
)
