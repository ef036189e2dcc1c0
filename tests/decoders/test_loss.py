"""Nothing of a message vanishes: every leaf of it is in a row, in a reject, or was repaired with the original kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks import decode_checked
from eventwriter import registry
from eventwriter.stream import Decoded, Message, Stream
from oracle import lost
from profiles import examples
from strategies_messages import Generated, flow_messages, json_messages, otlp_messages, sweep_messages

NOW = 1_765_535_400_987_654_321
STREAMS = registry.load()


def check(stream: Stream, given_: Generated) -> None:
    """Nothing is lost, neither by the fallback nor by the fast path."""
    subject = stream.subjects[0].replace(">", "test")
    message = Message(subject, given_.payload, 7, NOW, given_.headers)
    decoded = decode_checked(stream, message)
    assert not lost(stream, given_.records, given_.shared, decoded)
    if stream.fast is not None and (row := stream.fast([message] * 8)[0]) is not None:
        assert not lost(stream, given_.records, given_.shared, Decoded((row,)))


@pytest.mark.parametrize("name", STREAMS)
@given(data=st.data())
@settings(max_examples=examples(60))
def test_nothing_of_a_json_message_is_lost(name: str, data: st.DataObject) -> None:
    """Flat records of any shape, in any wrapping."""
    check(STREAMS[name], data.draw(json_messages(name)))


@pytest.mark.parametrize("name", ["LOGS", "OTEL_TRACES", "OTEL_METRICS"])
@given(data=st.data())
@settings(max_examples=examples(60))
def test_nothing_of_an_otlp_message_is_lost(name: str, data: st.DataObject) -> None:
    """Requests over all fields, in both encodings, in any wrapping."""
    check(STREAMS[name], data.draw(otlp_messages(name)))


@given(given_=flow_messages())
@settings(max_examples=examples(80))
def test_nothing_of_a_flow_is_lost(given_: Generated) -> None:
    """Protobuf over all fields, and unknown ones, bare and after its length."""
    check(STREAMS["NETFLOW"], given_)


@given(given_=sweep_messages())
@settings(max_examples=examples(80))
def test_nothing_of_a_sweep_is_lost(given_: Generated) -> None:
    """What a summary says of all its hosts, also where a host says something else."""
    check(STREAMS["SWEEP"], given_)
