"""SWEEP: what network sweeps found, in JSON, becomes rows of ``sweep_host_states``; a summary is a row per host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventwriter import values
from eventwriter.stream import Column, Decoded, Message, Row, Stream
from eventwriter.values import INT8_MAX, INT8_MIN, Unfit, dump_json
from workers._guard import total
from workers._json import records as flat
from workers._json.count import RECORD, Shape
from workers._json.flat import Places, keep_original
from workers._json.records import EXACT, SHARED_MAX, Origin, moment, named
from workers._json.sweep_fast import typed_rows
from workers._limits import RECORDS_MAX, too_many

COLUMNS = (
    Column("host_ip", "text"),
    Column("gateway_id", "text", aliases=("poller_id",)),
    Column("agent_id", "text"),
    Column("partition", "text"),
    Column("network_cidr", "text"),
    Column("hostname", "text"),
    Column("mac", "text"),
    Column("icmp_available", "boolean"),
    Column("icmp_response_time_ns", "bigint"),
    Column("icmp_packet_loss", "double precision"),
    Column("tcp_ports_scanned", "jsonb"),
    Column("tcp_ports_open", "jsonb"),
    Column("port_scan_results", "jsonb"),
    Column("last_sweep_time", "timestamptz"),
    Column("first_seen", "timestamptz"),
    Column("metadata", "jsonb"),
    Column("received_at", "timestamptz", core=False),
)

_PLACES = Places(
    ("host_ip", "hostIp", "ip"),
    ("poller_id", "pollerId"),
    ("gateway_id", "gatewayId"),
    ("agent_id", "agentId"),
    ("partition",),
    ("network_cidr", "networkCidr"),
    ("hostname",),
    ("mac",),
    ("icmp_available", "icmpAvailable"),
    ("icmp_response_time_ns", "icmpResponseTimeNs"),
    ("icmp_packet_loss", "icmpPacketLoss"),
    ("tcp_ports_scanned", "tcpPortsScanned"),
    ("tcp_ports_open", "tcpPortsOpen"),
    ("port_scan_results", "portScanResults"),
    ("last_sweep_time", "lastSweepTime"),
    ("first_seen", "firstSeen"),
    ("metadata",),
)
_SHAPE = Shape({"hosts": RECORD}, events=8, alone=_PLACES.names[0])
_FIRST_NAMES = tuple(names[0] for names in _PLACES.names)
_ONLY_FIRST_NAMES = frozenset(_FIRST_NAMES).issuperset


def _row(record: Mapping[str, Any], origin: Origin) -> Row:
    received, time, envelope, repairs = origin
    rest: dict[str, Any] = {}
    if _ONLY_FIRST_NAMES(record):
        given = [*map(record.get, _FIRST_NAMES)]
    else:
        given, rest = _PLACES.sort(record)
    (host, poller, gateway, agent, partition, cidr, hostname, mac, available, response, loss, scanned, open_ports,
     results, swept, seen, metadata) = given  # fmt: skip

    if host is None or host == "":
        raise Unfit("missing_field", "host_ip is missing")
    if type(host) is not str:
        host = named("host_ip", values.text, host)
    if poller is not None:
        if gateway is not None and (type(gateway) is not str or gateway != poller):
            rest["gateway_id"] = gateway
        gateway = poller
    if type(gateway) is not str:
        gateway = "unknown" if gateway is None else named("gateway_id", values.text, gateway)
    if type(agent) is not str:
        agent = "unknown" if agent is None else named("agent_id", values.text, agent)
    if type(partition) is not str:
        partition = "default" if partition is None else named("partition", values.text, partition)
    if swept is not None:
        found = named("last_sweep_time", moment, swept)
        if found is not None:
            time = found
    first_seen = None
    if seen is not None:
        try:
            first_seen = moment(seen)
        except Unfit as error:
            keep_original(rest, "first_seen", seen, repairs, error.reason)
    if cidr is not None and type(cidr) is not str:
        cidr = flat.text("network_cidr", cidr, rest, repairs)
    if hostname is not None and type(hostname) is not str:
        hostname = flat.text("hostname", hostname, rest, repairs)
    if mac is not None and type(mac) is not str:
        mac = flat.text("mac", mac, rest, repairs)
    if available is not None and type(available) is not bool:
        available = flat.boolean("icmp_available", available, rest, repairs)
    if response is not None and (type(response) is not int or not INT8_MIN <= response <= INT8_MAX):
        response = flat.integer("icmp_response_time_ns", response, INT8_MIN, INT8_MAX, rest, repairs)
    if type(loss) is int and -EXACT <= loss <= EXACT:
        loss = float(loss)
    elif loss is not None and type(loss) is not float:
        loss = flat.real("icmp_packet_loss", loss, rest, repairs)
    return (
        host,
        gateway,
        agent,
        partition,
        cidr or None,
        hostname or None,
        mac or None,
        available,
        response,
        loss,
        dump_json(scanned) if type(scanned) is list else flat.jsonb(scanned),
        dump_json(open_ports) if type(open_ports) is list else flat.jsonb(open_ports),
        dump_json(results) if type(results) is list else flat.jsonb(results),
        time,
        first_seen,
        flat.metadata_of(metadata, rest, envelope),
        received,
    )


def _hosts(summary: Mapping[str, Any]) -> list[Any] | None:
    """The hosts of a SweepSummary as records of their own; None if this object is not one.

    Its other keys are kept with every host, or, if they are large, with the first. Raises Unfit("too_large") if what
    fills the columns of all hosts is.
    """
    hosts = summary.get("hosts")
    if type(hosts) is not list or any(name in summary for name in _PLACES.names[0]):
        return None
    if len(hosts) > RECORDS_MAX:
        raise too_many()
    common: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in summary.items():
        if name in _PLACES.place_of:
            common[name] = value
        elif name == "network":
            common["network_cidr"] = value
        elif name == "last_sweep":
            common["last_sweep_time"] = value
        elif name != "hosts":
            others[name] = value
    if len(dump_json(common)) > SHARED_MAX:
        raise Unfit("too_large", f"what a summary says of all its hosts is more than {SHARED_MAX} bytes")
    shared = others if len(dump_json(others)) <= SHARED_MAX else {}
    records: list[Any] = []
    for host in hosts:
        records.append(_host_record(host, common, shared if records else others) if type(host) is dict else host)
    return records


def _host_record(host: Mapping[str, Any], common: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    record = {**common, **host}
    if record.get("host_ip") is None:
        record["host_ip"] = record.pop("host", None)
    if record.get("port_scan_results") is None and "port_results" in record:
        record["port_scan_results"] = record.pop("port_results")
    icmp = record.get("icmp_status")
    if type(icmp) is dict:
        left = dict(icmp)
        for name, column in (
            ("available", "icmp_available"),
            ("round_trip", "icmp_response_time_ns"),
            ("packet_loss", "icmp_packet_loss"),
        ):
            if record.get(column) is None and name in left:
                record[column] = left.pop(name)
        del record["icmp_status"]
        if left:
            record["icmp_status"] = left
    if others:
        record["sweep"] = others
    return record


@total
def decode(message: Message) -> Decoded:
    """The rows of one message: a host, an array of them, a SweepSummary, or CloudEvents around any of these."""
    return flat.decode_records(message, _row, group="hosts", expand=_hosts, shape=_SHAPE)


STREAM = Stream(
    name="SWEEP",
    subjects=("sweep.>",),
    table="sweep_host_states",
    columns=COLUMNS,
    decode=decode,
    quick=typed_rows,
    key=("host_ip", "gateway_id", "partition", "last_sweep_time"),
)
