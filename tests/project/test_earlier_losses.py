"""Each way in which earlier writers lost or duplicated messages, by its number, and the tests that cover it here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from eventwriter import registry

TESTS = Path(__file__).resolve().parents[1]

COVERED_BY: dict[str, tuple[str, ...]] = {
    # Undecodable messages are acknowledged and gone → dead letters, then acknowledged.
    "D1": (
        "test_service.py::test_all_seven_streams_arrive",
        "test_json_records.py::test_D1_D2_a_message_without_records_is_rejected_whole",
    ),
    "D2": (
        "test_service.py::test_all_seven_streams_arrive",
        "test_json_records.py::test_D1_D2_a_message_without_records_is_rejected_whole",
    ),
    # A failing table takes messages of others with it → one transaction and one outcome per stream.
    "D3": ("test_service.py::test_a_missing_table_stops_one_stream_and_the_others_go_on",),
    # Discarded after some deliveries → the batch is held, the deadline extended, for as long as it takes.
    "D4": ("test_service.py::test_an_outage_of_postgresql_holds_the_batch",),
    # One bad row fails its neighbours → isolated.
    "D5": ("test_sink.py::test_one_refused_row_leaves_its_neighbours",),
    # NAK without delay is a hot loop → no NAK but on drain; retries back off.
    "D6": (
        "test_backoff.py::test_delays_grow_to_the_maximum_and_stay_there",
        "test_sink.py::test_one_refused_row_leaves_its_neighbours",
    ),
    # Malformed messages of one kind are never acknowledged → every fate ends in an acknowledgement.
    "D7": (
        "test_service.py::test_all_seven_streams_arrive",
        "test_sink.py::test_rows_dead_letters_and_ledger_are_written_together",
    ),
    # Core NATS: what is published while the writer is down is lost → durable consumers.
    "D8": (
        "test_service.py::test_all_seven_streams_arrive",
        "test_service.py::test_a_consumer_that_is_deleted_resumes_from_the_ledger",
    ),
    # Streams without a sink → the registry has a table for each stream.
    "D9": (
        "test_earlier_losses.py::test_every_stream_has_a_table_and_a_decoder",
        "test_service.py::test_all_seven_streams_arrive",
    ),
    # Unknown subjects are dropped → whatever the filter delivers is decoded or a dead letter; exclusion is explicit.
    "D10": (
        "test_service.py::test_an_excluded_subject_is_acknowledged_and_not_written",
        "test_events.py::test_any_other_object_is_a_raw_row",
    ),
    # A short outage spends the delivery budget → nothing is pulled meanwhile.
    "D11": ("test_service.py::test_an_outage_of_postgresql_holds_the_batch",),
    # Redelivered messages become new rows → decoding is deterministic, and the ledger knows them.
    "D12": (
        "test_sink.py::test_redelivered_messages_are_known",
        "test_events.py::test_EV4_D12_an_event_without_id_gets_one_from_its_place_in_the_stream",
    ),
    # Wildcards compared as text → NATS semantics.
    "D13": ("test_subjects.py::test_wildcards",),
    # Handlers chosen by a part of the table's name → a handler per stream.
    "D14": ("test_earlier_losses.py::test_every_stream_has_a_table_and_a_decoder",),
    # A tenant guessed from the subject, for the whole batch → nothing is guessed from the subject.
    "D15": (
        "test_earlier_losses.py::test_every_stream_has_a_table_and_a_decoder",
        "test_events.py::test_what_belongs_to_another_stream_is_rejected",
    ),
    # Raw and processed copies both stored → exclude.
    "D16": ("test_service.py::test_an_excluded_subject_is_acknowledged_and_not_written",),
    # JSON arrays raise → each element is a record.
    "D17": (
        "test_decode_command.py::test_what_is_rejected_says_why_and_ends_with_65",
        "test_json_records.py::test_D17_a_message_holds_records_in_many_ways",
    ),
    # Duplicates on redelivery without a key → the ledger.
    "T3": ("test_sink.py::test_redelivered_messages_are_known",),
    # A key twice in one batch → the last one wins.
    "EV5": ("test_sink.py::test_the_latest_message_of_a_key_wins",),
    # An upsert that replaces three columns → all of them.
    "EV6": ("test_sink.py::test_the_latest_message_of_a_key_wins",),
    "S3": ("test_sink.py::test_the_latest_message_of_a_key_wins",),
}


def functions(path: Path) -> set[str]:
    """The names of a module's functions."""
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("defect", COVERED_BY)
def test_the_tests_that_cover_a_defect_exist(defect: str) -> None:
    """The table above names real tests."""
    for each in COVERED_BY[defect]:
        file, _, name = each.partition("::")
        (path,) = TESTS.rglob(file)
        assert name in functions(path)


def test_every_stream_has_a_table_and_a_decoder() -> None:
    """One declaration decides stream, decoder and table; no name is guessed."""
    streams = registry.load()
    assert len(streams) == 7
    assert len({stream.table for stream in streams.values()}) == 7
    assert len({stream.decode for stream in streams.values()}) == 7
    for stream in streams.values():
        assert f"CREATE TABLE IF NOT EXISTS {stream.table}" in registry.table_sql(stream.table)
