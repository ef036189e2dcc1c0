"""Who is called at night: a service, the alerts of Prometheus, and the runbook in the hand."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from eventwriter.embedded import free_port
from fix_monitor import Endpoint
from fix_proxy import Proxied
from fix_service import World, only, wait_until
from timelapse import HOUR, Timelapse


class OnCall:
    """What may be done to a service in trouble, and how one looks at it."""

    def __init__(
        self, proxied: Proxied, folder: Path, names: Iterable[str], rules: Mapping[str, str], runbook: Mapping[str, str]
    ) -> None:
        self.proxied = proxied
        self.world: World = proxied.world
        self.rules = rules
        self.runbook = runbook
        self.endpoint = Endpoint(f"127.0.0.1:{free_port()}")
        self.lapse = Timelapse(self.endpoint, set(re.findall(r"\beventwriter_\w+", " ".join(rules.values()))))
        self.settings = folder / "eventwriter.toml"
        self.password = folder / "password"
        self.password.write_text("of old")
        self.environment = only(*names) | {
            "EVENTWRITER_HTTP__LISTEN": self.endpoint.address,
            "EVENTWRITER_POSTGRES__PASSWORD_FILE": str(self.password),
        }
        self.followed: list[str] = []
        self.kept: dict[str, str] = {}
        """What stays in the configuration file of a stream, whatever else changes."""
        self.configure()
        self.service = self.start()

    def start(self) -> Any:
        """The service, ready."""
        dsn = {"EVENTWRITER_POSTGRES__DSN": self.world.writer}
        service = self.world.start("--config", str(self.settings), "supervise", **self.environment, **dsn)
        self.ready()
        return service

    def configure(self, more: str = "", stream: str = "LOGS", **changed: str) -> None:
        """Writes the configuration file, with some settings of a stream that it does not have at the start."""
        own = self.kept | {stream: "".join(f"{key} = {value}\n" for key, value in changed.items())}
        own[stream] += self.kept.get(stream, "")
        text = "".join(f"[streams.{name}]\n{lines}" for name, lines in own.items())
        self.settings.write_text(f'[writer]\nbatch_messages = 500\nack_wait = "1s"\n{text}{more}')

    def reload(self, more: str = "", *, stream: str = "LOGS", **changed: str) -> None:
        """Changes the configuration file, and waits until other workers of the stream go by it."""
        before = self.pids(stream)
        self.configure(more, stream, **changed)
        self.service.send_signal(signal.SIGHUP)
        wait_until(lambda: (now := self.pids(stream)) and not now & before, lambda: self.world.log[-3000:])
        self.ready()

    def pids(self, stream: str) -> set[int]:
        """The workers of a stream, as the page shows them."""
        try:
            return {each["pid"] for each in self.endpoint.status()["streams"][stream]["processes"]}
        except OSError:  # the monitor is a new one, too
            return set()

    def ready(self) -> None:
        """All streams are being written; there are no problems any more."""
        wait_until(
            lambda: self.endpoint.answers("/readyz", 200) and self.told() == "ok\n",
            lambda: f"{self.told()}\n{self.world.log[-3000:]}",
        )

    def told(self) -> str:
        """What /readyz says."""
        return self.endpoint.get("/readyz")[1]

    def fires(self, alert: str, *words: str, stream: str = "LOGS") -> None:
        """The alert is raised, of this stream, and its paragraph has these words, with what to do."""
        for word in words:
            assert word in re.sub(r"\s+", " ", self.runbook[alert]), alert
        wait_until(lambda: self._raised(alert, stream), lambda: f"{alert}\n{self.world.log[-3000:]}")
        self.followed.append(alert)

    def ends(self, *alerts: str, stream: str = "LOGS") -> None:
        """The stream is being written, and after an hour of that none of the alerts is raised."""
        self.ready()
        self.lapse.leap(HOUR)
        self.lapse.scrape()
        self.written(stream)
        wait_until(lambda: not any(self._raised(alert, stream) for alert in alerts), f"the end of {alerts}")

    def _raised(self, alert: str, stream: str) -> bool:
        found = self.lapse.firing(self.rules[alert])
        return any(stream == dict(labels).get("stream", stream) for labels in found)

    def written(self, stream: str, count: int = 20) -> None:
        """Messages that are well come, and their rows are committed."""
        value = partial(self.value, "messages_written_total", stream)
        before = value()
        self.publish(stream, count)
        wait_until(lambda: value() >= before + count, lambda: f"{count} of {stream}\n{self.world.log[-3000:]}")

    def value(self, name: str, stream: str) -> float:
        """A number that the service tells of a stream; -1 while there is none."""
        found = self.endpoint.value(name, stream=stream)
        return -1.0 if found is None else found

    def run(self, *arguments: str, check: bool = True) -> str:
        """A command with the settings of the service; its output."""
        return self.world.run("--config", str(self.settings), *arguments, check=check, **self.environment).stdout

    def publish(self, stream: str, count: int = 20) -> None:
        """Messages that are well."""
        self.world.traffic([stream], count=count, broken=0)
