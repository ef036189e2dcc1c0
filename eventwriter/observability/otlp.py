"""The metrics, pushed by OTLP over HTTP to whom the variables of OpenTelemetry name: for those without Prometheus.

Only the monitor pushes, from a thread of its own: nobody waits for an endpoint. What it needs is the extra ``otel``.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from eventwriter.errors import ConfigurationError
from eventwriter.outage import Outage

log = logging.getLogger("eventwriter.monitor")

LAST = 2.0
"""Seconds that the last push may take; a service that ends gives its monitor a second more."""
_LONGEST = 86_400_000
"""Milliseconds that anything is waited for: what a thread can wait for has an end, too."""
_NAMED = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"


class Target(NamedTuple):
    """Where to push, and when."""

    url: str
    interval: float
    timeout: float

    @property
    def shown(self) -> str:
        """The address without what may be secret in it: a login, and a query."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def target(environ: Mapping[str, str]) -> Target | None:
    """What the variables say, as OpenTelemetry specifies them; None: nothing is to be pushed.

    Raises ConfigurationError for what cannot be done. An empty variable is like none.
    """
    given = {name: value.strip() for name, value in environ.items() if name.startswith("OTEL_") and value.strip()}
    name = next((name for name in _NAMED if name in given), None)
    exporters = [each.strip() for each in given.get("OTEL_METRICS_EXPORTER", "otlp").split(",")]
    if name is None or given.get("OTEL_SDK_DISABLED", "").lower() == "true" or "otlp" not in exporters:
        return None
    url = given[name] if name == _NAMED[0] else f"{given[name].rstrip('/')}/v1/metrics"
    try:
        usable = urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"{name} must be a URL such as http://collector:4318")
    protocol, said = _either(given, "PROTOCOL")
    if said not in ("", "http/protobuf"):
        raise ConfigurationError(f"{protocol} must be http/protobuf, for which most collectors have port 4318")
    return Target(
        url,
        _seconds("OTEL_METRIC_EXPORT_INTERVAL", given.get("OTEL_METRIC_EXPORT_INTERVAL", ""), 60.0),
        min(
            _seconds(*_either(given, "TIMEOUT"), 10.0),
            _seconds("OTEL_METRIC_EXPORT_TIMEOUT", given.get("OTEL_METRIC_EXPORT_TIMEOUT", ""), 30.0),
        ),
    )


def _either(given: Mapping[str, str], what: str) -> tuple[str, str]:
    """The variable that says it of metrics, or else that for all; and its value."""
    names = f"OTEL_EXPORTER_OTLP_METRICS_{what}", f"OTEL_EXPORTER_OTLP_{what}"
    name = names[0] if names[0] in given else names[1]
    return name, given.get(name, "")


def _seconds(name: str, text: str, default: float) -> float:
    """What is wrong is told, and as if it were not there: so it is specified."""
    if re.fullmatch("[0-9]{1,18}", text) and 0 < int(text) <= _LONGEST:
        return int(text) / 1000
    if text:
        log.warning("%s must be a number of milliseconds above 0, %d are taken", name, 1000 * default)
    return default


class Pusher:
    """Pushes at once, then again and again, and a last time when it is told to end."""

    def __init__(self, where: Target, instance: str, read: Callable[[], Mapping[str, Any]]) -> None:
        """``read`` gives the status document; ``instance`` tells this service from others."""
        self._where = where
        self._instance = instance
        self._read = read
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Pushes what there is now; returns after LAST seconds at most, whatever the endpoint does."""
        self._ended.set()
        self._thread.join(LAST)
        if self._thread.is_alive():
            log.error("the last metrics are not pushed: %s did not take them in %g s", self._where.shown, LAST)

    def _run(self) -> None:
        try:
            from eventwriter.observability.otlp_export import Exporter  # 15 MB that only this process needs
        except ImportError:
            log.error("no metrics are pushed, for that needs more: pip install 'eventwriter[otel]'")
            return
        try:
            exporter = Exporter(self._where.url, self._where.timeout, self._instance)
        except Exception as error:  # noqa: BLE001 - what the variables name, such as a file with certificates
            log.error("no metrics are pushed: %s", type(error).__name__)
            return
        every = f"every {self._where.interval:g} s"
        log.info("pushing metrics to %s %s", self._where.shown, every)
        outage = Outage(log, "OTLP endpoint", {})
        ended = False
        while True:
            try:
                wrong = exporter.push(self._read())
            except Exception as error:  # noqa: BLE001 - no bug of an exporter ends the pushing
                wrong = type(error).__name__
            if wrong:
                then = "the last push is lost" if ended else f"the writers go on, trying again {every}"
                outage.failed(f"metrics cannot be pushed to {self._where.shown}: {wrong}", then)
            else:
                outage.over()
            if ended:
                return
            ended = self._ended.wait(self._where.interval)


def pusher(environ: Mapping[str, str], listen: str, read: Callable[[], Mapping[str, Any]]) -> Pusher | None:
    """Pushes from now on, if the environment asks for that; what is wrong with it is one line of the log."""
    try:
        where = target(environ)
    except ConfigurationError as error:
        log.error("no metrics are pushed: %s", error)
        return None
    return where and Pusher(where, f"{socket.gethostname()}:{listen.rpartition(':')[2]}", read)
