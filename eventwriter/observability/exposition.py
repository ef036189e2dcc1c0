"""The metrics of the status document, for Prometheus or as OpenMetrics; no label ever holds a subject."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.samples import Exemplar

from eventwriter import errors
from eventwriter.observability import histograms
from eventwriter.observability.board import AGE_BUCKETS, BATCH_BUCKETS, FATES

_MESSAGES = {
    "taken": "Messages taken from JetStream: at rest the sum of the five fates below.",
    "written": "Messages whose rows are committed.",
    "deadlettered": "Messages of which nothing but a dead letter is committed.",
    "already_done": "Messages delivered again that the ledger knew.",
    "excluded": "Messages left out because of their subject, as configured.",
    "released": "Messages given back to JetStream unwritten.",
    "redelivered": "Messages taken that had been delivered before.",
}
assert set(FATES) < set(_MESSAGES)

_COUNTERS = {
    "rows_written": ("rows_written", "Rows that were inserted or replaced, and committed."),
    "bytes_taken": ("bytes_taken", "Bytes of payload taken."),
    "messages_empty": ("empty", "Messages without any record, such as an empty OTLP request."),
    "messages_reread": ("reread", "Messages that were missing from the ledger, read again and written."),
    "worker_restarts": ("restarts", "Restarts of workers that ended by themselves."),
}
_COUNTERS_BY = {
    "rows_skipped": ("rows_skipped", "reason", "Rows not written although nothing is wrong with them by themselves."),
    "values_repaired": ("repairs", "reason", "Values changed so that PostgreSQL takes them."),
    "records_deadlettered": ("rejects", "reason", "Records that became dead letters."),
    "errors": ("errors", "class", "Errors that interrupted writing."),
}
_KNOWN = {"errors": dict.fromkeys(sorted(errors.kinds()), 0)}
"""There from the beginning: of a series that begins with its first error, Prometheus never sees an increase."""
_DOWN = ("parked", "restarting", "stalled")
_GAUGES: dict[str, tuple[Callable[[Any], float | None], str]] = {
    "batch_messages": (lambda s: s["batch_messages"], "Messages of the latest batch."),
    "consumer_pending": (lambda s: s["consumer_pending"], "Messages not delivered yet."),
    "consumer_ack_pending": (lambda s: s["consumer_ack_pending"], "Messages delivered and not acknowledged."),
    "messages_missing": (
        lambda s: s["missing"],
        "Sequences missing from the ledger and gone from the stream, not accepted yet.",
    ),
    "columns_omitted": (
        lambda s: len(s["columns_omitted"]),
        "Columns left out for the table lacks them and omit does not name them.",
    ),
    "lag_seconds": (
        lambda s: s["lag_seconds"],
        "Age of the newest message in the batch at hand or, while others wait, of the newest written; else 0.",
    ),
    "last_commit_timestamp_seconds": (lambda s: s["last_commit"], "When a batch was last committed."),
    "worker_up": (lambda s: int(s["state"] not in _DOWN), "1 while every worker of the stream is alive."),
    "worker_rss_bytes": (lambda s: sum(p["rss_bytes"] for p in s["processes"]), "Resident memory of the workers."),
}


def expose(status: Mapping[str, Any]) -> bytes:
    """The metrics of a status document in the Prometheus text format 0.0.4."""
    return generate_latest(_registry(status))


def families(status: Mapping[str, Any]) -> Iterable[Metric]:
    """The metrics of a status document, whatever form they are to have."""
    return _Collector(status).collect()


def negotiated(status: Mapping[str, Any], accept: str) -> tuple[str, bytes]:
    """The metrics in the format that a client prefers, who may not have said any; first its content type."""
    kinds: dict[str, float] = {}
    for part in accept.split(","):
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        kinds[kind] = max(kinds.get(kind, 0.0), _quality(parameters))
    wanted = kinds.get("application/openmetrics-text", 0.0)
    if wanted > 0 and wanted >= kinds.get("text/plain", 0.0):
        text: bytes = openmetrics.generate_latest(_registry(status))  # type: ignore[no-untyped-call]
        return openmetrics.CONTENT_TYPE_LATEST, text
    return "text/plain; version=0.0.4; charset=utf-8", expose(status)


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _registry(status: Mapping[str, Any]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Collector(status))
    return registry


class _Collector:
    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        streams = self._status["streams"]
        for fate, text in _MESSAGES.items():
            yield _counter(f"messages_{fate}", text, {n: each["messages"][fate] for n, each in streams.items()})
        for name, (key, text) in _COUNTERS.items():
            yield _counter(name, text, {n: each[key] for n, each in streams.items()})
        for name, (key, label, text) in _COUNTERS_BY.items():
            family = CounterMetricFamily(f"eventwriter_{name}", text, labels=["stream", label])
            for stream, each in streams.items():
                for word, count in {**_KNOWN.get(name, {}), **each[key]}.items():
                    family.add_metric([stream, word], count)
            yield family
        seconds = HistogramMetricFamily(
            "eventwriter_batch_seconds", "What the stages of a batch took.", labels=["stream", "stage"]
        )
        ages = HistogramMetricFamily("eventwriter_event_age_seconds", "Broker time to commit.", labels=["stream"])
        for stream, each in streams.items():
            latest = each["exemplars"]
            for stage, counts in each["batch_durations"].items():
                buckets = _cumulated(BATCH_BUCKETS, counts, latest[stage])
                seconds.add_metric([stream, stage], buckets, each["batch_seconds"][stage])
            found = each["event_ages"]
            ages.add_metric([stream], _cumulated(AGE_BUCKETS, found["buckets"], latest[histograms.AGE]), found["sum"])
        yield seconds
        yield ages
        for name, (value, text) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"eventwriter_{name}", text, labels=["stream"])
            for stream, each in streams.items():
                if (known := value(each)) is not None:
                    gauge.add_metric([stream], known)
            yield gauge
        loaded = int(not self._status["config_error"])
        yield GaugeMetricFamily(
            "eventwriter_config_last_reload_successful", "0 while changed settings are wrong.", value=loaded
        )
        build = GaugeMetricFamily("eventwriter_build_info", "The version that runs.", labels=["version"])
        build.add_metric([self._status["version"]], 1)
        yield build


def _counter(name: str, text: str, values: Mapping[str, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"eventwriter_{name}", text, labels=["stream"])
    for stream, value in values.items():
        family.add_metric([stream], value)
    return family


def _cumulated(
    bounds: Sequence[float], counts: Sequence[int], latest: Sequence[Sequence[float] | None]
) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    """Buckets, each with the latest batch that fell into it, if that is known."""
    counts = counts or [0] * (len(bounds) + 1)
    buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    for place, bound in enumerate((*map(str, bounds), "+Inf")):
        count, found = sum(counts[: place + 1]), latest[place] if latest else None
        buckets.append((bound, count, _exemplar(*found)) if found else (bound, count))
    return buckets


def _exemplar(seconds: float, sequence: float, moment: float) -> Exemplar:
    return Exemplar({"sequence": str(sequence)}, seconds, moment)
