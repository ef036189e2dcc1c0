"""Prometheus beside a service of a test: a second of the test is a minute, so that the windows of alerts pass."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from fix_monitor import Endpoint, parsed
from promql import History, Vector

SPEED = 60.0
HOUR = 3600.0
TARGET = {"job": "eventwriter", "instance": "db-1:9465"}


class Timelapse:
    """Scrapes when it is asked something. Whatever a metric tells in seconds, it tells in seconds of this time."""

    def __init__(self, endpoint: Endpoint, names: Iterable[str]) -> None:
        self.bytes = 1.0
        """As how many a byte of memory counts."""
        self._endpoint = endpoint
        self._names = tuple(names)
        self._history = History()
        self._began = time.time()
        self._leaps: list[tuple[float, float]] = []

    def leap(self, seconds: float) -> None:
        """So much time passes, and everything is as it was."""
        self._leaps.append((time.time(), seconds))

    def scrape(self) -> float:
        """Notes what the service exposes now; returns the time."""
        now = time.time()
        try:
            text = self._endpoint.get("/metrics")[1]
        except OSError:
            self._history.add(self._at(now), [("up", TARGET, 0.0)])
        else:
            self._history.add(self._at(now), [("up", TARGET, 1.0), *self._samples(text)])
        return self._at(now)

    def firing(self, expression: str) -> Vector:
        """The series for which an alert of this expression is raised now, but for its ``for``."""
        return self._history.evaluate(expression, self.scrape())

    def _at(self, moment: float) -> float:
        leapt = sum(seconds for at, seconds in self._leaps if at <= moment)
        return self._began + (moment - self._began) * SPEED + leapt

    def _samples(self, text: str) -> Iterator[tuple[str, dict[str, str], float]]:
        for line in text.splitlines():
            if line.startswith(self._names):
                series, _, told = line.rpartition(" ")
                name, labels = parsed(series)
                value, labels = float(told), {**labels, **TARGET}
                if name.endswith("_timestamp_seconds"):
                    value = self._at(value)
                elif name.endswith(("_seconds", "_seconds_sum")):
                    value *= SPEED
                elif name.endswith("_seconds_bucket"):
                    labels["le"] = str(float(labels["le"]) * SPEED)
                elif name.endswith("_rss_bytes"):
                    value *= self.bytes
                yield name, labels, value
