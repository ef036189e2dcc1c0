"""What a running service says of itself, asked over HTTP as anybody would."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from beside import beside
from eventwriter.commands import status_table
from patience import PATIENCE

Sample = tuple[str, tuple[tuple[str, str], ...]]


def samples(text: str) -> dict[Sample, float]:
    """The samples of an exposition by name, without the prefix, and labels."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name, labels = parsed(series)
            found[name.removeprefix("eventwriter_"), tuple(sorted(labels.items()))] = float(value)
    return found


@cache
def parsed(series: str) -> tuple[str, dict[str, str]]:
    """The name and the labels before a value: they come again with each scrape, and take long to parse."""
    ((sample,),) = (family.samples for family in text_string_to_metric_families(f"{series} 0"))
    return sample.name, sample.labels


@dataclass
class Endpoint:
    """The HTTP port of a service."""

    address: str
    decreased: list[str] = field(default_factory=list)
    """Counters that ``watching`` saw going back."""
    seen: list[tuple[float, int, str]] = field(default_factory=list)
    """(monotonic time, status, body) of every /readyz while ``watching``."""

    def get(self, path: str, method: str = "GET", timeout: float = 5 * PATIENCE) -> tuple[int, str]:
        """Status and body; raises OSError when nobody answers."""
        connection = http.client.HTTPConnection(self.address, timeout=timeout)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def answers(self, path: str, status: int, *words: str) -> bool:
        """Whether the answer is this status with these words in it."""
        try:
            found, text = self.get(path)
        except OSError:
            return False
        return found == status and all(word in text for word in words)

    def status(self) -> dict[str, Any]:
        """The status document."""
        document: dict[str, Any] = json.loads(self.get("/status")[1])
        return document

    def metrics(self) -> dict[Sample, float]:
        """The samples of /metrics."""
        return samples(self.get("/metrics")[1])

    def value(self, name: str, **labels: str) -> float | None:
        """One sample; None if there is none, or no answer."""
        try:
            return self.metrics().get((name, tuple(sorted(labels.items()))))
        except OSError:
            return None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Scrapes again and again: notes every counter that goes back, and every /readyz."""

        def watch(ended: threading.Event) -> None:
            before: dict[Sample, float] = {}
            while not ended.wait(0.05):
                with suppress(OSError):
                    now = self.metrics()
                    self.decreased += [
                        f"{name}{labels}: {before[name, labels]} → {value}"
                        for (name, labels), value in now.items()
                        if name.endswith(("_total", "_count", "_sum", "_bucket"))
                        and value < before.get((name, labels), 0.0)
                    ]
                    before |= now
                    self.seen.append((time.monotonic(), *self.get("/readyz")))

        with beside(watch):
            yield


def rendered(document: dict[str, Any], width: int) -> str:
    """What a terminal so wide shows, without colours."""
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(status_table.render(document, width))
    return captured.get()
