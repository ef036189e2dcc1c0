"""NETFLOW: flow records in protobuf (goflow2 and its relatives) or JSON become rows of ``netflow_metrics``."""

from __future__ import annotations

from eventwriter.stream import Column, Decoded, Message, Reject, Row, Stream
from eventwriter.values import EPOCH, Unfit
from workers import _flow

COLUMNS = (
    Column("timestamp", "timestamptz"),
    Column("gateway_id", "text", aliases=("poller_id",)),
    Column("agent_id", "text"),
    Column("device_id", "text"),
    Column("flow_direction", "text"),
    Column("src_addr", "text"),
    Column("dst_addr", "text"),
    Column("src_port", "integer"),
    Column("dst_port", "integer"),
    Column("protocol", "integer"),
    Column("packets", "bigint"),
    Column("octets", "bigint"),
    Column("sampler_address", "text"),
    Column("input_snmp", "integer"),
    Column("output_snmp", "integer"),
    Column("metadata", "jsonb"),
)


def decode(message: Message) -> Decoded:
    """The rows of one message; see stream.Stream.decode."""
    return _from_protobuf(message.payload, message.time // 1000 - EPOCH)


def _from_protobuf(payload: bytes, received: int) -> Decoded:
    rows: list[Row] = []
    rejects: list[Reject] = []
    repairs: list[str] = []
    try:
        flows = _flow.read(payload)
    except Unfit as error:
        return Decoded((), (Reject(error.reason, str(error)),))
    for index, flow in enumerate(flows):
        if flow is None:
            rejects.append(Reject("malformed", "not a FlowMessage of its length", index))
            continue
        try:
            rows.append(_flow.row(flow, received, repairs))
        except Unfit as error:
            rejects.append(Reject(error.reason, str(error), index if len(flows) > 1 else None))
    return Decoded(rows, rejects, repairs)


STREAM = Stream(name="NETFLOW", subjects=("netflow.>",), table="netflow_metrics", columns=COLUMNS, decode=decode)
