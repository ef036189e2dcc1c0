"""The metrics: what Prometheus parses, with every name that dashboards and alerts build on."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from boards import batch, running, settings, trouble, write
from eventwriter.observability import status
from eventwriter.observability.board import AGE_BUCKETS, BATCH_BUCKETS, FATES, STAGES, Board
from eventwriter.observability.exposition import expose
from eventwriter.observability.monitor import Monitor
from eventwriter.stream import Message, Outcome, Reject
from fix_monitor import Sample, samples
from fix_service import STREAMS

FAMILIES = {
    "messages_taken": "counter",
    "messages_written": "counter",
    "messages_deadlettered": "counter",
    "messages_already_done": "counter",
    "messages_excluded": "counter",
    "messages_released": "counter",
    "messages_redelivered": "counter",
    "messages_empty": "counter",
    "messages_reread": "counter",
    "messages_missing": "gauge",
    "columns_omitted": "gauge",
    "rows_written": "counter",
    "rows_skipped": "counter",
    "bytes_taken": "counter",
    "values_repaired": "counter",
    "records_deadlettered": "counter",
    "errors": "counter",
    "worker_restarts": "counter",
    "batch_seconds": "histogram",
    "event_age_seconds": "histogram",
    "batch_messages": "gauge",
    "consumer_pending": "gauge",
    "consumer_ack_pending": "gauge",
    "lag_seconds": "gauge",
    "last_commit_timestamp_seconds": "gauge",
    "worker_up": "gauge",
    "worker_rss_bytes": "gauge",
    "build_info": "gauge",
    "config_last_reload_successful": "gauge",
}


def exposed(board: Board, **environ: str) -> str:
    """The exposition of a board."""
    return expose(status.read(board, settings(**environ))).decode()


def test_every_metric_is_there_for_every_stream() -> None:
    """Names, types and help as agreed, nothing else, and each family once."""
    board = Board()
    _, reports = running(board, settings())
    for report in reports.values():
        trouble(report)
    text = exposed(board)
    families = {family.name.removeprefix("eventwriter_"): family for family in text_string_to_metric_families(text)}
    assert {name: family.type for name, family in families.items()} == FAMILIES
    for name, family in families.items():
        assert family.documentation.endswith("."), name
        if name not in ("build_info", "config_last_reload_successful"):
            assert {sample.labels["stream"] for sample in family.samples} == set(STREAMS), name
    assert text.count("# TYPE ") == len(FAMILIES)
    assert all(line.startswith(("#", "eventwriter_")) for line in text.splitlines())


def test_what_is_unknown_is_absent() -> None:
    """A service that has just begun claims no lag and no commit; its counters are 0."""
    found = samples(exposed(Board()))
    names = {name for name, _ in found}
    assert not names & {"lag_seconds", "consumer_pending", "consumer_ack_pending", "last_commit_timestamp_seconds"}
    assert all(value == 0 for (name, _), value in found.items() if name.endswith("_total"))


def test_histograms_are_cumulative() -> None:
    """Buckets never fall, the last is the count, and the bounds are those that were declared."""
    board = Board()
    _, reports = running(board, settings())
    for count in (1, 2, 50, 333):
        for age in (0.001, 0.005, 0.3, 4000.0):
            taken = batch(count, age=age)
            reports["LOGS"].took(taken, age)
            write(reports["LOGS"], count)
    found = samples(exposed(board))
    buckets: dict[Sample, list[tuple[float, float]]] = defaultdict(list)
    for (name, labels), value in found.items():
        if name.endswith("_bucket"):
            rest = tuple(label for label in labels if label[0] != "le")
            buckets[name.removesuffix("_bucket"), rest].append((float(dict(labels)["le"]), value))
    assert len(buckets) == len(STREAMS) * (1 + len(STAGES))
    for (name, labels), steps in buckets.items():
        assert steps == sorted(steps)
        assert [value for _, value in steps] == sorted(value for _, value in steps)
        assert steps[-1] == (float("inf"), found[f"{name}_count", labels])
        bounds = AGE_BUCKETS if name == "event_age_seconds" else BATCH_BUCKETS
        assert tuple(bound for bound, _ in steps[:-1]) == bounds
        assert found[f"{name}_sum", labels] >= 0


def test_processes_of_a_stream_are_added_and_stay_counted() -> None:
    """Two processes count together, and what they counted stays when there is only one with another name."""
    board = Board()
    more = {"STREAMS__LOGS__PROCESSES": "2"}
    children, reports = running(board, settings(**more))
    write(reports["LOGS/1"], 20)
    write(reports["LOGS/2"], 30)
    children.restarting("LOGS/2", 1.0)
    labels = (("stream", "LOGS"),)
    before = samples(exposed(board, **more))
    assert before["messages_written_total", labels] == 70
    assert before["worker_restarts_total", labels] == 1
    after = samples(exposed(board))
    assert after["messages_written_total", labels] == 70
    assert after["worker_restarts_total", labels] == 1


def test_nothing_from_a_message_becomes_a_label() -> None:
    """Subjects and texts of any kind leave the series as they are."""
    board = Board()
    _, reports = running(board, settings())
    trouble(reports["LOGS"])
    known = set(samples(exposed(board)))
    for number in range(500):
        subject = f'logs.{chr(0x4E00 + number)}.{number}"\\\n'
        rejected = [(Message(subject, b"", number, 0), Reject("malformed", subject))]
        write(reports["LOGS"], 1, written=0, deadlettered=1, rejects={"malformed": 1}, latest=rejected)
    text = exposed(board)
    assert set(samples(text)) == known
    assert "logs." not in text


@pytest.mark.parametrize("in_hand", [0, 3])
def test_the_accounts_are_exact(in_hand: int) -> None:
    """Messages taken are those with a fate and those in hand; a process that ends has none in hand."""
    board = Board()
    _, reports = running(board, settings())
    for report in reports.values():
        trouble(report)
        if in_hand:
            report.took(batch(in_hand), 0.0)
        report.beat(force=True)
    for left in (in_hand, 0):
        found = samples(exposed(board))
        for name in STREAMS:
            labels = (("stream", name),)
            fates = sum(found[f"messages_{fate}_total", labels] for fate in FATES)
            assert found["messages_taken_total", labels] - fates == left
        for report in reports.values():
            report.ended(None)


def test_the_status_document_is_json() -> None:
    """Whatever is on the board, it can be served."""
    board = Board()
    _, reports = running(board, settings())
    trouble(reports["LOGS"])
    document = status.read(board, settings())
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;q=0, */*", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;q=0.1, text/plain;q=0.9", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;q=much", "text/plain; version=0.0.4"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0"),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;"
            "version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/openmetrics-text; version=1.0.0",
        ),
    ],
)
def test_who_asks_for_openmetrics_gets_it(accept: str, kind: str) -> None:
    """With the same samples; whoever does not ask, or prefers the other, gets what there always was."""
    board = Board()
    _, reports = running(board, settings())
    trouble(reports["LOGS"])
    answer = Monitor(board, settings()).answer("/metrics", {"accept": accept})
    assert answer.status == 200
    assert answer.kind.startswith(f"{kind}; charset=utf-8")
    text = answer.body.decode()
    assert text.endswith("# EOF\n") == ("openmetrics" in kind)
    parse = openmetrics_families if "openmetrics" in kind else text_string_to_metric_families
    told = {family.name: family for family in parse(text)}
    assert {name.removeprefix("eventwriter_") for name in told} == {*FAMILIES}
    assert [sample.value for sample in told["eventwriter_messages_written"].samples if "LOGS" in sample.labels.values()]
    exemplars = [sample for family in told.values() for sample in family.samples if sample.exemplar]
    assert bool(exemplars) == ("openmetrics" in kind)


def test_a_bucket_names_the_latest_batch_that_fell_into_it() -> None:
    """By the sequence of its last message, whichever process wrote it; a part of a batch by that of its own."""
    board, more = Board(), {"STREAMS__LOGS__PROCESSES": "2"}
    _, reports = running(board, settings(**more))
    for name, count, seconds in (("LOGS/1", 7, 0.7), ("LOGS/2", 8, 0.8), ("LOGS/1", 9, 20.0), ("LOGS/2", 3, 99.0)):
        write(reports[name], count, seconds={"decode": seconds})
    reports["LOGS/1"].wrote_part(Outcome(written=5, seconds={"copy": 4.0}), 12)
    for taken in (batch(6, age=45.0), batch(11, age=2000.0)._replace(reread=True)):
        reports["LOGS/2"].took(taken, 0.0)
        reports["LOGS/2"].wrote(taken, Outcome(written=len(taken.messages)))
    for report in reports.values():
        report.beat(force=True)
    body = Monitor(board, settings(**more)).answer("/metrics", {"accept": "application/openmetrics-text"}).body
    found: dict[str, set[tuple[str, str, float]]] = defaultdict(set)
    for family in openmetrics_families(body.decode()):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            if sample.exemplar and sample.labels["stream"] == "LOGS":
                stage = sample.labels.get("stage", "age")
                assert sample.exemplar.value <= float(sample.labels["le"])
                found[stage].add((sample.labels["le"], sample.exemplar.labels["sequence"], sample.exemplar.value))
    assert {("1.0", "8", 0.8), ("30.0", "9", 20.0), ("+Inf", "3", 99.0)} <= found["decode"]
    assert ("5.0", "12", 4.0) in found["copy"]
    assert [(le, sequence) for le, sequence, value in found["age"] if value > 40] == [("60.0", "6")]
    assert "ack" not in found  # when it is confirmed, another batch may be the latest
