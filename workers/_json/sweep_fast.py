"""One host that a sweep found in a JSON object, when every value has its expected type and every key its first name."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from eventwriter.stream import Message, Row
from eventwriter.values import EPOCH, INT8_MAX, INT8_MIN
from workers._json.fast import common_time, fitted, without_large_exponents
from workers._json.records import EXACT

_NULL = msgspec.Raw(b"null")


class Host(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The keys of such a record."""

    host_ip: str
    last_sweep_time: str
    gateway_id: str = "unknown"
    agent_id: str = "unknown"
    partition: str = "default"
    network_cidr: str | None = None
    hostname: str | None = None
    mac: str | None = None
    icmp_available: bool | None = None
    icmp_response_time_ns: int | None = None
    icmp_packet_loss: float | None = None
    tcp_ports_scanned: msgspec.Raw = _NULL
    tcp_ports_open: msgspec.Raw = _NULL
    port_scan_results: msgspec.Raw = _NULL
    first_seen: str | None = None
    metadata: msgspec.Raw = _NULL


_DECODER = msgspec.json.Decoder(Host)


@without_large_exponents
def typed_rows(messages: Sequence[Message], nested: list[bytes]) -> list[Row | None]:
    """The row of each message that is one such record; None for every other message."""
    rows: list[Row | None] = []
    for message, host in zip(messages, fitted(_DECODER, b'"last_sweep_time"', messages), strict=True):
        rows.append(None)
        if host is None or not host.host_ip:
            continue
        response, loss = host.icmp_response_time_ns, host.icmp_packet_loss
        # Integers are read as float too: below this they are exact.
        if (response is not None and not INT8_MIN <= response <= INT8_MAX) or (
            loss is not None and not -EXACT < loss < EXACT
        ):
            continue
        scanned, open_ports = bytes(host.tcp_ports_scanned), bytes(host.tcp_ports_open)
        results, metadata = bytes(host.port_scan_results), bytes(host.metadata)
        if not (
            (scanned[:1] == b"[" or scanned == b"null")
            and (open_ports[:1] == b"[" or open_ports == b"null")
            and (results[:1] == b"[" or results == b"null")
            and (metadata[:1] == b"{" or metadata == b"null")
        ):
            continue
        time = common_time(host.last_sweep_time)
        first_seen = None if host.first_seen is None else common_time(host.first_seen)
        if time is None or (first_seen is None and host.first_seen is not None):
            continue
        nested += scanned, open_ports, results, metadata
        rows[-1] = (
            host.host_ip,
            host.gateway_id,
            host.agent_id,
            host.partition,
            host.network_cidr or None,
            host.hostname or None,
            host.mac or None,
            host.icmp_available,
            response,
            loss,
            None if scanned == b"null" else scanned,
            None if open_ports == b"null" else open_ports,
            None if results == b"null" else results,
            time,
            first_seen,
            None if metadata == b"null" else metadata,
            message.time // 1000 - EPOCH,
        )
    return rows
