"""Metrics pushed by OTLP: what a receiver gets is what /metrics says, and none that is away disturbs anybody."""

from __future__ import annotations

import gzip
import logging
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf, isinf
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, Metric

from boards import running, settings, trouble
from eventwriter import __version__
from eventwriter.embedded import free_port
from eventwriter.observability import otlp, status
from eventwriter.observability.board import FATES, Board
from eventwriter.observability.exposition import expose
from eventwriter.observability.otlp_export import Exporter
from fix_monitor import Endpoint, Sample, samples
from fix_service import World, only, wait_until
from patience import PATIENCE

SECRET = "Zq8sesame"


class Receiver(ThreadingHTTPServer):
    """An OTLP receiver; ``mode`` is what it does with requests: take them, a status to answer, or nothing at all."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mode: int | str = "take"
        self.requests: list[ExportMetricsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.ended = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def latest(self) -> dict[Sample, float]:
        """Its latest request, as the samples that Prometheus would have."""
        return dict(flattened(self.requests[-1])) if self.requests else {}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Receiver

    def do_POST(self) -> None:
        """What an exporter sends."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.mode == "hang":
            self.server.ended.wait(60 * PATIENCE)
            return
        if self.server.mode == "take":
            raw = gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()} | {"": self.path})
            self.server.requests.append(ExportMetricsServiceRequest.FromString(raw))
        self.send_response(200 if self.server.mode == "take" else int(self.server.mode))
        self.end_headers()
        self.wfile.write(ExportMetricsServiceResponse().SerializeToString())

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def metrics(request: ExportMetricsServiceRequest) -> Iterator[Metric]:
    """All that are in a request."""
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            yield from scope.metrics


def flattened(request: ExportMetricsServiceRequest) -> Iterator[tuple[Sample, float]]:
    """A request's points as samples."""
    for metric in metrics(request):
        name = metric.name.removeprefix("eventwriter_")
        for point in getattr(metric, metric.WhichOneof("data") or "").data_points:
            labels = {each.key: each.value.string_value for each in point.attributes}
            plain = tuple(sorted(labels.items()))
            if metric.WhichOneof("data") != "histogram":
                yield (name, plain), point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
                continue
            yield (f"{name}_count", plain), point.count
            yield (f"{name}_sum", plain), point.sum
            for place, bound in enumerate((*point.explicit_bounds, inf)):
                of_bucket = tuple(sorted((labels | {"le": "+Inf" if isinf(bound) else str(bound)}).items()))
                yield (f"{name}_bucket", of_bucket), sum(point.bucket_counts[: place + 1])


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """One that takes what comes, and an environment that names no other."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{SECRET},x-tenant=ours")
    with Receiver() as found:
        yield found
        found.ended.set()
        found.shutdown()


def document() -> dict[str, Any]:
    """The status of a service in which everything has happened."""
    board = Board()
    _, reports = running(board, settings())
    for report in reports.values():
        trouble(report)
    return status.read(board, settings())


def test_what_is_pushed_is_what_metrics_says(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sample with its name and labels; sums that grow from the start of the service, units, exemplars, headers."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.instance.id=mine")
    told = document()
    pusher = otlp.Pusher(otlp.Target(f"{receiver.url}/v1/metrics", 3600.0, 5.0 * PATIENCE), "here:9465", lambda: told)
    wait_until(lambda: receiver.requests, "a push")
    assert receiver.latest() == samples(expose(told).decode())
    (request,) = receiver.requests
    by_name = {metric.name: metric for metric in metrics(request)}
    assert {name for name, metric in by_name.items() if metric.WhichOneof("data") == "sum"} == {
        name for name in by_name if name.endswith("_total")
    }
    for metric in by_name.values():
        assert metric.description.endswith(".")
        kind = getattr(metric, metric.WhichOneof("data") or "")
        if metric.WhichOneof("data") != "gauge":
            assert kind.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
            assert {point.start_time_unix_nano for point in kind.data_points} == {int(told["started"] * 1e9)}
    assert by_name["eventwriter_messages_taken_total"].sum.is_monotonic
    units = {name.removeprefix("eventwriter_"): metric.unit for name, metric in by_name.items() if metric.unit}
    assert units == {
        **dict.fromkeys(("bytes_taken_total", "worker_rss_bytes"), "By"),
        **dict.fromkeys(("batch_seconds", "event_age_seconds", "lag_seconds", "last_commit_timestamp_seconds"), "s"),
    }
    exemplars = [
        each for point in by_name["eventwriter_batch_seconds"].histogram.data_points for each in point.exemplars
    ]
    assert {each.filtered_attributes[0].value.string_value for each in exemplars} == {"5"}
    ours = {each.key: each.value.string_value for each in request.resource_metrics[0].resource.attributes}
    assert ours == {
        "service.name": "eventwriter",
        "service.version": __version__,
        "service.instance.id": "mine",
        "deployment.environment.name": "test",
    }
    (headers,) = receiver.headers
    assert (headers["authorization"], headers["x-tenant"], headers[""]) == (f"Bearer {SECRET}", "ours", "/v1/metrics")
    pusher.end()
    assert len(receiver.requests) == 2


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("away", "Connection refused"),
        ("unknown", "the host name cannot be resolved"),
        ("no TLS", "SSLError"),
        ("hang", "timed out"),
        (503, "it answers 503 Service Unavailable"),
        (401, "it answers 401 Unauthorized"),
    ],
)
def test_an_endpoint_that_does_not_take_them_is_one_line(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest, mode: int | str, said: str
) -> None:
    """With the cause and no secret, however often it is tried; then that it is back. The end waits for none of them."""
    caplog.set_level(logging.DEBUG)
    ours = receiver.url.removeprefix("http://")
    host = {"away": f"127.0.0.1:{free_port()}", "unknown": "no-such-host.invalid"}.get(str(mode), ours)
    receiver.mode = mode if mode in ("hang", 503, 401) else "take"
    told, tries = document(), []
    caplog.clear()

    def read() -> dict[str, Any]:
        tries.append(mode)
        return told

    url = f"http{'s' if mode == 'no TLS' else ''}://user:{SECRET}@{host}/v1/metrics?key={SECRET}"
    timeout = 2.0 if mode in ("no TLS", 503, 401) else 0.2  # who answers takes its time on a busy machine
    pusher = otlp.Pusher(otlp.Target(url, 0.01, timeout), "here:9465", read)
    request.addfinalizer(partial(pusher._thread.join, 30))  # or it goes on beside other tests
    request.addfinalizer(pusher.end)
    wait_until(lambda: len(tries) > 3, lambda: f"some tries: {caplog.text}")
    shown = f"{url.partition(':')[0]}://{host}/v1/metrics"
    assert caplog.messages == [
        f"pushing metrics to {shown} every 0.01 s",
        f"metrics cannot be pushed to {shown}: {said}: the writers go on, trying again every 0.01 s",
    ]
    if receiver.mode != "take":
        receiver.mode = "take"
        wait_until(lambda: len(caplog.messages) > 2, "the end of it")
        assert caplog.messages[2].startswith("OTLP endpoint is back after ")
        receiver.mode = "hang"
    began = time.monotonic()
    pusher.end()
    assert time.monotonic() - began < otlp.LAST + PATIENCE
    assert len(caplog.messages) <= 4
    assert SECRET not in caplog.text


def test_a_push_without_time_says_so(receiver: Receiver) -> None:
    """The exporter tries in no time, which libraries refuse in words of their own. What a try before it found stays."""
    exporter = Exporter(receiver.url, 1e-9, "here:9465")
    assert exporter.push(document()) == "timed out"
    assert not receiver.requests
    receiver.mode = 503
    session = exporter._session
    session.request("POST", receiver.url, data=b"", timeout=60.0)
    receiver.mode = "hang"
    for seconds in (0.0, 0.1):
        with pytest.raises((requests.RequestException, TimeoutError)):
            session.request("POST", receiver.url, data=b"", timeout=seconds)
    assert session.wrong == "it answers 503 Service Unavailable"


BASE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}
TRACES = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318", "OTEL_METRIC_EXPORT_INTERVAL": "5000"}
METRICS = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "https://collector/x?y=z"}
TIMEOUTS = {"OTEL_EXPORTER_OTLP_TIMEOUT": "9000", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "2500"}


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, None),
        (TRACES, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, None),
        (BASE, ("http://collector:4318/v1/metrics", 60.0, 10.0)),
        (BASE | METRICS, ("https://collector/x?y=z", 60.0, 10.0)),
        (BASE | {"OTEL_SDK_DISABLED": "True"}, None),
        (BASE | {"OTEL_SDK_DISABLED": "no"}, ("http://collector:4318/v1/metrics", 60.0, 10.0)),
        (BASE | {"OTEL_METRICS_EXPORTER": "none"}, None),
        (BASE | {"OTEL_METRICS_EXPORTER": "console, otlp"}, ("http://collector:4318/v1/metrics", 60.0, 10.0)),
        (METRICS | {"OTEL_METRIC_EXPORT_INTERVAL": "1500"} | TIMEOUTS, ("https://collector/x?y=z", 1.5, 2.5)),
        (METRICS | {"OTEL_METRIC_EXPORT_TIMEOUT": "700"} | TIMEOUTS, ("https://collector/x?y=z", 60.0, 0.7)),
        (METRICS | {"OTEL_METRIC_EXPORT_INTERVAL": "-1"}, ("https://collector/x?y=z", 60.0, 10.0)),
        (METRICS | {"OTEL_METRIC_EXPORT_INTERVAL": "1m"}, ("https://collector/x?y=z", 60.0, 10.0)),
        (BASE | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf"),
        (BASE | {"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/json"}, "OTLP_METRICS_PROTOCOL must be http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": f"collector:4318/{SECRET}"}, "OTEL_EXPORTER_OTLP_ENDPOINT must be a URL"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://[::1"}, "OTLP_METRICS_ENDPOINT must be a URL"),
    ],
)
def test_the_variables_mean_what_opentelemetry_says(
    environ: dict[str, str], found: tuple[str, float, float] | str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """What is wrong is one line, and nothing is pushed; a number that is none is as if it were not there."""
    if isinstance(found, str):
        assert otlp.pusher(environ, "127.0.0.1:9465", dict) is None
        (line,) = caplog.messages
        assert line.startswith("no metrics are pushed: ")
        assert found in line
        assert SECRET not in line
    else:
        assert otlp.target(environ) == found
        wrong = environ.get("OTEL_METRIC_EXPORT_INTERVAL") in ("-1", "1m")
        assert (
            caplog.messages
            == ["OTEL_METRIC_EXPORT_INTERVAL must be a number of milliseconds above 0, 60000 are taken"] * wrong
        )


@pytest.mark.parametrize("text", ["9223372036854775807", "86400001", "0", f"1{'0' * 400}", f"1{'0' * 5000}", "٣"])
def test_an_interval_that_nobody_can_wait_for_is_as_if_it_were_not_there(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told as what is no number at all; a day is the longest."""
    names = "OTEL_METRIC_EXPORT_INTERVAL", "OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_METRIC_EXPORT_TIMEOUT"
    found = otlp.target(BASE | dict.fromkeys(names, text))
    assert found == ("http://collector:4318/v1/metrics", 60.0, 10.0)
    assert caplog.messages == [
        f"{name} must be a number of milliseconds above 0, {usual} are taken"
        for name, usual in zip(names, (60_000, 10_000, 30_000), strict=True)
    ]
    found = otlp.target(BASE | {names[0]: "86400000"})
    assert found is not None
    assert found.interval == 86_400.0


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """In one line, with what installs it."""
    monkeypatch.setitem(sys.modules, "eventwriter.observability.otlp_export", None)
    pusher = otlp.pusher(BASE, "127.0.0.1:9465", dict)
    assert pusher is not None
    pusher.end()
    assert caplog.messages == ["no metrics are pushed, for that needs more: pip install 'eventwriter[otel]'"]


def test_a_service_pushes_what_it_did_last(world: World, receiver: Receiver) -> None:
    """At its end, after the workers have; before that what /metrics says. An endpoint that hangs does not keep it."""
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    environment = only("LOGS") | {"EVENTWRITER_HTTP__LISTEN": endpoint.address}
    pushed = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_METRIC_EXPORT_INTERVAL": "100"}
    service = world.start(**environment, **pushed)
    world.traffic(["LOGS"], count=300, broken=0.1)
    world.wait_settled()
    rows, letters = world.counts("LOGS")

    def same() -> bool:
        """Whether a push between two scrapes that agree is as they are, but for what is never the same."""
        try:
            found = [endpoint.metrics(), receiver.latest(), endpoint.metrics()]
        except OSError:  # who is slow to ask is not answered
            return False
        steady = [{key: value for key, value in each.items() if key[0] != "worker_rss_bytes"} for each in found]
        return steady[0] == steady[2] == steady[1]

    wait_until(same, lambda: f"the same: {set(endpoint.metrics().items()) ^ set(receiver.latest().items())}")
    assert "exited after" not in world.log, "a monitor that died is another matter"
    assert world.stop(service) == 0, world.log
    labels = (("stream", "LOGS"),)
    receiver.requests.clear()
    service = world.start(**environment, **pushed | {"OTEL_METRIC_EXPORT_INTERVAL": "3600000"})
    world.traffic(["LOGS"], count=200, broken=0.1, seed=1)
    wait_until(lambda: endpoint.answers("/readyz", 200), "readiness")
    wait_until(lambda: receiver.requests, "the first push")
    assert world.stop(service) == 0
    assert len(receiver.requests) == 2
    last, (more, others) = receiver.latest(), world.counts("LOGS")
    assert last["messages_written_total", labels] == more - rows
    assert last["messages_deadlettered_total", labels] == others - letters
    fates = sum(last[f"messages_{fate}_total", labels] for fate in FATES)
    assert last["messages_taken_total", labels] == fates
    receiver.mode = "hang"
    service = world.start(**environment, **pushed)
    wait_until(lambda: endpoint.answers("/readyz", 200), "readiness")
    assert world.stop(service) == 0
    assert world.log.count("the last metrics are not pushed: ") == 1
    assert SECRET not in world.log
