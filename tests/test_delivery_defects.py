"""Where each way is tested in which earlier writers lost messages. The table is kept by looking the tests up.

D1   what cannot be decoded is acknowledged with a warning
D2   the same, at debug level
D3   a failure of one table's batch delays or loses messages of others
D4   messages that failed three times are discarded
D5   one bad row fails its batch
D6   an immediate NAK makes a hot loop of a poison message
D7   malformed messages are never acknowledged
D8   what is published while the writer is away is lost
D9   a subject without a handler raises
D10  unknown subjects are acknowledged and dropped
D11  ten deliveries without delay: seconds of an outage lose data
D12  times and ids of the moment make a redelivered message a new row
D13  wildcards in subjects never match
D14  the handler is chosen by a part of the table's name
D15  subjects are taken for tenants
D16  raw and processed copies are both stored
D17  an array fails its batch for ever
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent

COVERED = {
    "D1": "test_json_records.test_D1_D2_a_message_without_records_is_rejected_whole",
    "D2": "test_json_records.test_D1_D2_a_message_without_records_is_rejected_whole",
    "D3": "test_service.test_a_missing_table_stops_one_stream_and_the_others_go_on",
    "D4": "test_service.test_an_outage_of_postgresql_holds_the_batch",
    "D5": "test_sink.test_one_refused_row_leaves_its_neighbours",
    "D6": "test_sink.test_one_refused_row_leaves_its_neighbours",
    "D7": "test_sink.test_rows_dead_letters_and_ledger_are_written_together",
    "D8": "test_service.test_a_consumer_that_is_deleted_resumes_from_the_ledger",
    "D9": "test_service.test_all_seven_streams_arrive",
    "D10": "test_events.test_any_other_object_is_a_raw_row",
    "D11": "test_service.test_an_outage_of_postgresql_holds_the_batch",
    "D12": "test_events.test_EV4_D12_an_event_without_id_gets_one_from_its_place_in_the_stream",
    "D13": "test_subjects.test_wildcards",
    "D14": "test_service.test_all_seven_streams_arrive",
    "D15": "test_events.test_what_belongs_to_another_stream_is_rejected",
    "D16": "test_service.test_an_excluded_subject_is_acknowledged_and_not_written",
    "D17": "test_json_records.test_D17_a_message_holds_records_in_many_ways",
}


@pytest.mark.parametrize("defect", COVERED)
def test_every_delivery_defect_has_a_test(defect: str) -> None:
    """The test that the table names exists."""
    module, name = COVERED[defect].split(".")
    tree = ast.parse((TESTS / f"{module}.py").read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
