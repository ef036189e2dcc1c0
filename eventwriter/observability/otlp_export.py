"""The metrics of the status document as OTLP, sent by the exporter of OpenTelemetry: the extra ``otel``.

Names and values are those of /metrics, from the same families, so that both can be asked the same things.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.core import Metric as Family

from eventwriter import __version__
from eventwriter.observability.exposition import families

_CUMULATIVE = AggregationTemporality.CUMULATIVE


class Exporter:
    """Sends status documents to one endpoint; headers, compression and certificates are those of the environment."""

    def __init__(self, url: str, timeout: float, instance: str) -> None:
        for name in ("opentelemetry", "urllib3", "requests"):  # they tell each try, with URLs and what servers answer
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._session = _Session()
        self._exporter = OTLPMetricExporter(url, timeout=timeout, session=self._session)
        ours = {"service.name": "eventwriter", "service.version": __version__, "service.instance.id": instance}
        self._resource = Resource(ours).merge(OTELResourceDetector().detect())

    def push(self, status: Mapping[str, Any]) -> str:
        """Returns when it has arrived, or why it has not."""
        metrics = list(_metrics(families(status), int(status["started"] * 1e9), time.time_ns()))
        scope = ScopeMetrics(InstrumentationScope("eventwriter", __version__), metrics, "")
        self._session.wrong = ""
        result = self._exporter.export(MetricsData([ResourceMetrics(self._resource, [scope], "")]))
        return "" if result is MetricExportResult.SUCCESS else self._session.wrong or "the exporter refused it"


class _Session(requests.Session):
    """Remembers what was wrong with the latest request: the exporter tells it to its log alone."""

    wrong = ""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        try:
            if kwargs.get("timeout") == 0:  # which libraries refuse in words of their own
                raise TimeoutError("timed out")
            answer = super().request(*args, **kwargs)
        except Exception as error:
            wrong = _root(error)
            if not self.wrong or "timed out" not in wrong:  # another try may have hardly any time left
                self.wrong = wrong
            raise
        self.wrong = "" if answer.ok else f"it answers {answer.status_code} {answer.reason}"
        return answer


def _root(error: BaseException) -> str:
    """What it all came from, in the words of the system: those of the libraries quote URLs and objects."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    if isinstance(error, socket.gaierror):
        return "the host name cannot be resolved"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
        return error.strerror
    return str(error) if isinstance(error, TimeoutError) else type(error).__name__


def _metrics(found: Iterable[Family], start: int, now: int) -> Iterable[Metric]:
    """The same, with a counter's own name; what is of no series is left out."""
    for family in found:
        if not family.samples:
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield Metric(name, family.documentation, _unit(name), _data(family, start, now))


def _unit(name: str) -> str:
    """In UCUM. None of what is counted: whoever makes Prometheus names of it would add to them."""
    if name.endswith("_seconds"):
        return "s"
    return "By" if "bytes" in name.split("_") else ""


def _data(family: Family, start: int, now: int) -> Sum | Gauge | Histogram:
    if family.type == "histogram":
        return Histogram(list(_histograms(family, start, now)), _CUMULATIVE)
    points = [NumberDataPoint(sample.labels, start, now, sample.value) for sample in family.samples]
    return Sum(points, _CUMULATIVE, is_monotonic=True) if family.type == "counter" else Gauge(points)


def _histograms(family: Family, start: int, now: int) -> Iterable[HistogramDataPoint]:
    """Those of a family: each is its buckets in order, then its count and its sum."""
    bounds: list[float] = []
    counts: list[int] = []
    exemplars: list[Exemplar] = []
    count = 0
    for sample in family.samples:
        if sample.name.endswith("_bucket"):
            bounds.append(float(sample.labels["le"]))
            counts.append(int(sample.value) - sum(counts))
            if (one := sample.exemplar) is not None:
                exemplars.append(Exemplar(one.labels, one.value, int(float(one.timestamp or 0) * 1e9)))
        elif sample.name.endswith("_count"):
            count = int(sample.value)
        else:
            least: Any = None  # nobody has counted it
            yield HistogramDataPoint(
                *(sample.labels, start, now, count, sample.value, counts, bounds[:-1], least, least, exemplars)
            )
            bounds, counts, exemplars = [], [], []
