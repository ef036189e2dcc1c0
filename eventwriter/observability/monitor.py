"""The monitor process: serves what the board says as metrics, health, status and the page. It never blocks a writer."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Mapping
from importlib import resources
from typing import Any

from eventwriter import terminal
from eventwriter.config.loading import Config
from eventwriter.errors import OK
from eventwriter.observability import causes, letters, otlp, status
from eventwriter.observability.access import Access
from eventwriter.observability.awake import Awake
from eventwriter.observability.board import SUPERVISOR, Board, Slot
from eventwriter.observability.exposition import negotiated
from eventwriter.observability.server import TEXT, Answer, Server, UnusableFiles
from eventwriter.observability.states import HistoryState, MonitorState, SupervisorState
from eventwriter.processes.process import look, set_title

log = logging.getLogger("eventwriter.monitor")

STEP = 5.0
"""Seconds between two points of the history."""
POINTS = 180
"""Points of the history: 15 minutes."""
RECENT = 12
"""Steps over which the quantiles of the event age are taken: the last minute."""
DEAD = 10.0
"""Seconds without a sign of life from the supervisor after which /livez says so; it gives one every second."""
HUNG = 30.0
"""Seconds without a sign of life from the monitor after which the supervisor starts another; it gives one a second."""
NAME = "monitor"
"""The name of its process and of its slot."""
PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
"""Of each path of the page: its file and content type."""


class _History:
    """One stream's last 15 minutes. Kept on the board, so a monitor that is restarted goes on with it."""

    def __init__(self, name: str, slot: Slot) -> None:
        self._name = name
        self._slot = slot
        before = slot.read(HistoryState)
        self.points = deque(before.points if before else [], maxlen=POINTS)
        self._last = before.last if before else None
        self._ages: deque[list[int]] = deque(maxlen=RECENT)
        self._letters: deque[int] = deque(maxlen=RECENT)

    def add(self, stream: dict[str, Any], now: float) -> None:
        """One more point, in its place: what was missed since the last one, by a pause or a restart, is unknown."""
        rows, dead = stream["rows_written"], stream["messages"]["deadlettered"]
        rate = dying = None
        if self._last is not None:
            missed = round((now - self._last[0]) / STEP) - 1
            self.points.extend([(None, None, None)] * min(POINTS, missed))
            passed = max(0.001, now - self._last[0])
            rate = round(max(0, rows - self._last[1]) / passed, 1)
            dying = round(max(0, dead - self._last[2]) / passed, 3)
        self._last = now, rows, dead
        self._ages.append(stream["event_ages"]["buckets"])
        self._letters.append(dead)
        self.points.append((rate, stream["lag_seconds"], dying))
        self._slot.write(HistoryState(name=self._name, points=list(self.points), last=self._last))

    def recent_ages(self, buckets: list[int]) -> list[int]:
        """How many messages of the last minute were of each age."""
        before = self._ages[0] if self._ages and self._ages[0] else [0] * len(buckets)
        return [max(0, count - old) for count, old in zip(buckets, before, strict=True)]

    def recent_letters(self, dead: int) -> int:
        """How many messages became dead letters in the last minute, or as long as this is known."""
        return max(0, dead - self._letters[0]) if self._letters else 0


def history_name(stream: str) -> str:
    """The name of the slot of a stream's history."""
    return f"history {stream}"


class Monitor:
    """Samples the history and answers requests."""

    def __init__(self, board: Board, config: Config) -> None:
        self._board = board
        self._config = config
        self._access = Access(config.http)
        self.awake = Awake()
        before = board.slot(NAME).read(MonitorState)
        self.began: causes.Began = before.began if before else {}
        self._histories = {
            name: _History(history_name(name), board.slot(history_name(name)))
            for name, stream in config.streams.items()
            if stream.enabled
        }

    def read(self) -> dict[str, Any]:
        """The status document as the board has it."""
        return status.read(self._board, self._config, self.awake.since, self.began)

    def look(self) -> None:
        """Notes since when each stream is in trouble, also while nobody asks."""
        self.read()

    def drains(self) -> bool:
        """Whether the service ends and some worker has not yet."""
        supervisor = self._board.slot(SUPERVISOR).read(SupervisorState)
        if supervisor is None or not supervisor.stopping:
            return False
        return any(look(child.pid)[0] not in ("", "Z") for name, child in supervisor.children.items() if name != NAME)

    def sample(self) -> None:
        """Adds one point to the history of each stream."""
        now = time.monotonic()
        for name, stream in self.read()["streams"].items():
            self._histories[name].add(stream, now)

    def status(self) -> dict[str, Any]:
        """The status document, with histories and the quantiles of the last minute."""
        document, views = self.read(), letters.views(self._board)
        for name, stream in document["streams"].items():
            del stream["exemplars"]  # who looks at a page every second has no use for them
            for letter in stream["dead_letters"]:
                letter["view"] = views.get((name, letter["time"], letter["sequence"]), "")
            history = self._histories[name]
            points = list(history.points)
            ages = history.recent_ages(stream["event_ages"]["buckets"])
            stream["event_age_p50"] = status.quantile(ages, 0.5)
            stream["event_age_p99"] = status.quantile(ages, 0.99)
            stream["dead_letters_per_minute"] = history.recent_letters(stream["messages"]["deadlettered"])
            stream["history"] = {
                "step": STEP,
                "rows_per_s": [rate for rate, _, _ in points],
                "lag": [lag for _, lag, _ in points],
                "dead_letters_per_s": [dying for _, _, dying in points],
            }
        return document

    def answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        """To a request, if who asks may see that."""
        return self._access.refusal(path, headers) or self._answer(path, headers)

    def _answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        if path == "/livez":
            age = self.read()["beat_age"]
            if age > DEAD:
                return Answer(503, TEXT, f"no sign of life from the supervisor for {age:.0f} s\n".encode())
            return Answer(200, TEXT, b"ok\n")
        if path == "/readyz":
            document, tell = self.read(), self._access.tells(headers)
            problems = [f"{who}: {text}" for who, text in causes.lines(document, alone=False)]
            text = "".join(f"{terminal.one_line(problem)}\n" for problem in problems)
            if document["ready"]:
                return Answer(200, TEXT, b"ok\n" + (text.encode() if tell else b""))
            return Answer(503, TEXT, text.encode() if tell else b"not ready\n")
        if path == "/metrics":
            return Answer(200, *negotiated(self.read(), headers.get("accept", "")))
        if path == "/status":
            return Answer(200, "application/json", json.dumps(self.status()).encode())
        if path in PAGE:
            name, kind = PAGE[path]
            body = (resources.files("eventwriter.observability") / "page" / name).read_bytes()
            return Answer(200, kind, body)
        return Answer(404, TEXT, b"there are /, /status, /metrics, /readyz and /livez\n")


def run(board: Board, config: Config, slot: Slot) -> int:
    """Serves until SIGTERM; one that pushes metrics, until it has pushed what the workers did last.

    While the address is taken it asks for it again and again, and says so once.
    """
    set_title("eventwriter: monitor")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is in hand here, unless there is a last push
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    monitor = Monitor(board, config)
    pusher = otlp.pusher(os.environ, config.http.listen, monitor.read)
    if pusher is None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
    server: Server | None = None
    said = ""
    due = time.monotonic()
    while True:
        if server is None:
            try:
                server = Server(config.http.address, config.http.tls, monitor.answer)
            except OSError as error:
                if said != str(error):
                    where = "" if isinstance(error, UnusableFiles) else f"http.listen {config.http.listen}: "
                    log.error("%s%s; trying again, the writers go on", where, error.strerror or error)
                said = str(error)
            else:
                log.info("serving %s", server.url)
                server.start()
        now = monitor.awake.look()
        monitor.look()
        if now >= due:
            monitor.sample()
            if server is not None:
                server.renew()
            due += STEP * (1 + (now - due) // STEP)
        slot.write(MonitorState(name=NAME, beat=now, began=dict(monitor.began)))
        if not _told_to_end(within=1.0):
            continue
        if not monitor.drains():
            if pusher is not None:
                pusher.end()
            return OK
        time.sleep(0.1)


def _told_to_end(within: float) -> bool:
    """Whether SIGTERM, which is blocked, has come within so many seconds; sigtimedwait() cannot tell after a stop."""
    until = time.monotonic() + within
    while signal.SIGTERM not in signal.sigpending():
        rest = until - time.monotonic()
        if rest <= 0:
            return False
        time.sleep(min(rest, 0.1))
    return True
