"""The page in a real browser, fed by a server whose /status the tests write."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import pytest
from playwright.sync_api import expect

from eventwriter.observability.monitor import PAGE
from fix_browser import SIZE, Window, browser, pictures

FOLDER = Path(__file__).resolve().parents[2] / "eventwriter" / "observability" / "page"
NOW = 1765535400.0
TABLES = {
    "TELEMETRY": "timeseries_metrics",
    "EVENTS": "events",
    "SWEEP": "sweep_host_states",
    "NETFLOW": "netflow_metrics",
    "OTEL_METRICS": "otel_metrics",
    "OTEL_TRACES": "otel_traces",
    "LOGS": "logs",
}
HOSTILE = "<img src=x onerror=alert(1)>\"'&amp;<script>alert(2)</script>"


def stream(name: str, index: int, **changes: Any) -> dict[str, Any]:
    """What a stream in good health reports."""
    random = Random(index)
    rates = [
        None
        if i < 20 * (index % 3)
        else 900 / (index + 1) * (1 + 0.4 * math.sin(i / 30 + index) + 0.2 * random.random())
        for i in range(180)
    ]
    lags = [None if rate is None else index / 50 * random.random() for rate in rates]
    healthy = {
        "state": "running",
        "reason": "",
        "stream": name,
        "subjects": [f"{name.lower().replace('_', '.')}.>"],
        "durable": f"eventwriter-{name.lower()}",
        "table": TABLES.get(name, name.lower()),
        "columns_omitted": [],
        "processes": [
            {"name": name, "pid": 4100 + index, "state": "running", "restarts": 0, "rss_bytes": 47e6, "uptime": 5400.0}
        ],
        "nats_connected": True,
        "postgres_connected": True,
        "messages": {
            "taken": 120_000 + index,
            "written": 119_950 + index,
            "deadlettered": 0,
            "already_done": 30,
            "excluded": 0,
            "released": 0,
            "redelivered": 30,
        },
        "rows_written": 1_204_331 // (index + 1),
        "rows_skipped": {},
        "bytes_taken": 73_400_320,
        "restarts": 0,
        "batch_messages": 120,
        "consumer_pending": 14 * index,
        "consumer_ack_pending": 20,
        "lag_seconds": 0.02 * index,
        "event_age_p50": 0.012,
        "event_age_p99": 0.045,
        "last_commit": NOW - index,
        "rejects": {},
        "repairs": {"nul": 2},
        "errors": {},
        "batch_seconds": {"wait": 200.0, "decode": 31.0, "copy": 42.0, "commit": 12.0, "ack": 3.0},
        "history": {"step": 5.0, "rows_per_s": rates, "lag": lags},
        "dead_letters": [],
    }
    return healthy | changes


def status(**changes: dict[str, Any]) -> dict[str, Any]:
    """A service whose seven streams are well, but for the changes by stream."""
    streams = {name: stream(name, i, **changes.get(name, {})) for i, name in enumerate(TABLES)}
    problems = [{"stream": name, "text": each["reason"]} for name, each in streams.items() if each["reason"]]
    return {
        "version": "0.1.0",
        "now": NOW,
        "started": NOW - 5400,
        "ready": not problems,
        "problems": problems,
        "streams": streams,
    }


class Service:
    """Serves the page and whatever ``answer`` is, until told to be silent."""

    def __init__(self) -> None:
        self.answer: Any = status()
        self.silent = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path in PAGE:
                    name, kind = PAGE[self.path]
                    self._send(200, kind, (FOLDER / name).read_bytes())
                elif self.path == "/status" and not outer.silent:
                    self._send(200, "application/json", json.dumps(outer.answer).encode())
                else:
                    self._send(503, "text/plain", b"no")

            def _send(self, code: int, kind: str, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Service:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def served() -> Iterator[Service]:
    """The little server."""
    with Service() as service:
        yield service


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    """A page in a browser, for tests that need no other server than the little one: a new page takes half of a test."""
    with browser(tmp_path_factory.mktemp("browser")) as context:
        yield Window(context.new_page(), pictures())


@pytest.fixture
def service(served: Service) -> Service:
    """The little server, of a service that is well."""
    served.answer, served.silent = status(), False
    return served


@pytest.fixture
def window(opened: Window, service: Service) -> Iterator[Window]:
    """An empty page; whatever a test does, nothing goes wrong in it and no other host is asked."""
    opened.page.emulate_media(color_scheme="light", reduced_motion="reduce")
    opened.page.set_viewport_size(SIZE)
    opened.errors.clear()
    opened.hosts.clear()
    yield opened
    opened.page.goto("about:blank")
    assert opened.errors == []
    assert opened.hosts <= {service.url.split("/")[2]}


def row(window: Window, name: str) -> str:
    """The text of a stream's row."""
    return window.text(f'.row[data-stream="{name}"]')


def stuck(window: Window, name: str) -> str | None:
    """Which part of a stream's picture is drawn as stuck."""
    return window.page.locator(f'#lanes svg[aria-label^="{name}:"]').get_attribute("data-stuck")


def test_only_its_own_script_and_style_may_run() -> None:
    """The policy allows the files beside it and ./status, and nothing that is written into the page."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert set(texts) == {name for name, _ in PAGE.values()}
    text = texts["index.html"]
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert allowed["default-src"] == "'none'"
    assert allowed["script-src"] == allowed["style-src"] == allowed["connect-src"] == "'self'"
    assert re.findall(r"<script\b[^>]*>|<style\b[^>]*>", text) == ['<script src="page.js">']
    assert "style=" not in text
    links = re.findall(r'<link rel="(\w+)" href="(data:|[^"]*)', text)
    assert links == [("icon", "data:"), ("stylesheet", "page.css")]
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|\son\w+=", "".join(texts.values())
    )


def test_a_script_that_gets_into_the_page_does_not_run(window: Window, service: Service) -> None:
    """The policy holds in the browser: what is not a file of ours is refused."""
    window.page.goto(service.url)
    ran = window.page.evaluate(
        "() => { const script = document.createElement('script'); script.textContent = 'window.ran = true';"
        " document.body.append(script); return window.ran === true; }"
    )
    assert not ran
    assert "Content Security Policy" in window.errors.pop(0)


def test_a_healthy_service_reads_as_one(window: Window, service: Service) -> None:
    """Ready in words, seven streams, nothing stuck."""
    window.page.goto(service.url)
    expect(window.page.locator("#verdict")).to_have_text("Ready: all 7 streams are being written")
    expect(window.page.locator(".row")).to_have_count(7)
    assert "running" in row(window, "LOGS")
    assert "12 ms / 45 ms" in row(window, "LOGS")
    assert {stuck(window, name) for name in TABLES} == {""}
    assert window.page.locator("#lanes .flowing").count() == 14
    assert window.page.title() == "eventwriter: ready"
    window.picture("healthy")


def test_values_follow_the_service(window: Window, service: Service) -> None:
    """What the service says next is shown, in place."""
    window.page.goto(service.url)
    expect(window.page.locator(".row")).to_have_count(7)
    element = window.page.locator('.row[data-stream="LOGS"]').element_handle()
    service.answer = status(
        LOGS={
            "batch_messages": 4711,
            "history": {"step": 5.0, "rows_per_s": [1.0, 88_888.0], "lag": [0, 75.0]},
            "lag_seconds": 75.0,
        }
    )
    expect(window.page.locator('.row[data-stream="LOGS"]')).to_contain_text("4,711")
    assert "88,888" in row(window, "LOGS")
    assert "1 min 15 s" in row(window, "LOGS")
    assert element is not None
    assert element.evaluate("e => e.isConnected")


def test_a_stream_that_comes_or_goes_is_followed(window: Window, service: Service) -> None:
    """After a reload of the configuration the page shows what there is now."""
    window.page.goto(service.url)
    expect(window.page.locator(".row")).to_have_count(7)
    del service.answer["streams"]["SWEEP"]
    service.answer["streams"]["ALERTS"] = stream("ALERTS", 1)
    expect(window.page.locator('.row[data-stream="ALERTS"]')).to_be_visible()
    expect(window.page.locator('.row[data-stream="SWEEP"]')).to_have_count(0)
    assert window.page.locator("#lanes svg").count() == 7


case = partial(pytest.param, marks=pytest.mark.long)
"""Another one of a kind that the suite has a case of."""
AWAY = {"nats_connected": False, "postgres_connected": False}
KILLED = "ended by signal 9 (Killed), next start in 0.5 s"
NO_TABLE = "table sweep_host_states does not exist: run `eventwriter schema apply`"


@pytest.mark.parametrize(
    ("changes", "where", "word"),
    [
        ({"state": "disconnected", "reason": "NATS does not answer", "nats_connected": False}, "left", "NATS away"),
        case({"state": "waiting", "reason": "no route", "postgres_connected": False}, "right", "PostgreSQL away"),
        ({"state": "parked", "reason": NO_TABLE}, "right", "parked"),
        case({"state": "parked", "reason": "NATS refuses the credentials", "nats_connected": False}, "left", "parked"),
        case({"state": "parked", "reason": "wrong configuration"}, "middle", "parked"),
        case({"state": "stalled", "reason": "no sign of life for 120 s"}, "middle", "stalled"),
        ({"state": "restarting", "reason": KILLED, "restarts": 1} | AWAY, "middle", "restarting"),
    ],
    ids=["nats", "postgres", "table", "credentials", "configuration", "stalled", "killed"],
)
def test_the_stuck_part_stands_out(
    window: Window, service: Service, changes: dict[str, Any], where: str, word: str
) -> None:
    """Left is NATS, the middle the worker, right PostgreSQL; the others stay as they are."""
    service.answer = status(SWEEP=changes)
    window.page.goto(service.url)
    expect(window.page.locator("#verdict")).to_have_text("Not ready: 1 of 7 streams needs attention")
    assert stuck(window, "SWEEP") == where
    assert stuck(window, "LOGS") == ""
    assert word in row(window, "SWEEP")
    assert window.text("#problems") == f"SWEEP {changes['reason']}"


def test_columns_that_are_left_out_are_shown(window: Window, service: Service) -> None:
    """Briefly beside the state, all of them below it; the service is ready all the same."""
    window.page.goto(service.url)
    expect(window.page.locator(".row")).to_have_count(7)
    assert "without" not in window.text(".streams")
    names = ["start_timestamp", "series_key", "value_int", "unit", "description"]
    service.answer = status(LOGS={"columns_omitted": ["source", "data"]}, OTEL_METRICS={"columns_omitted": names})
    expect(window.page.locator('.row[data-stream="LOGS"]')).to_contain_text("without source, data")
    assert "without start_timestamp, series_key, value_int and 2 more" in row(window, "OTEL_METRICS")
    expect(window.page.locator("#verdict")).to_have_text("Ready: all 7 streams are being written")
    window.page.get_by_role("button", name="OTEL_METRICS").click()
    expect(window.page.locator(".lacks:visible")).to_contain_text(
        f"otel_metrics is written without {', '.join(names)}:"
    )
    window.picture("omitted")
    service.answer = status()
    expect(window.page.locator('.row[data-stream="LOGS"]')).not_to_contain_text("without")
    expect(window.page.locator(".lacks:visible")).to_have_count(0)


def test_trouble_of_every_kind_at_once(window: Window, service: Service) -> None:
    """Several streams in trouble, each at another place, told apart."""
    letter = {"reason": "malformed", "detail": "not JSON: expected value at line 1 column 9", "subject": "events.x"}
    letters = [letter | {"time": NOW - 30 * i, "sequence": 17 - i} for i in range(5)]
    taken = status()["streams"]["EVENTS"]["messages"]
    service.answer = status(
        TELEMETRY={
            "state": "disconnected",
            "reason": "NATS does not answer: nats://n1:4222",
            "nats_connected": False,
            "consumer_pending": None,
            "lag_seconds": None,
        },
        EVENTS={
            "dead_letters": letters,
            "rejects": {"malformed": 5},
            "rows_skipped": {"identical": 3, "dropped": 2},
            "messages": taken | {"deadlettered": 5},
        },
        SWEEP={"state": "parked", "reason": NO_TABLE},
        NETFLOW={"state": "restarting", "reason": KILLED, "restarts": 1} | AWAY,
        LOGS={
            "state": "waiting",
            "reason": "PostgreSQL does not answer: connection refused",
            "postgres_connected": False,
            "lag_seconds": 94.0,
            "consumer_pending": 120_331,
        },
    )
    window.page.goto(service.url)
    expect(window.page.locator("#verdict")).to_have_text("Not ready: 4 of 7 streams need attention")
    assert [stuck(window, name) for name in TABLES] == ["left", "", "right", "middle", "", "", "right"]
    assert "5 malformed" in row(window, "EVENTS")
    window.page.get_by_role("button", name="EVENTS").click()
    assert window.page.locator(".letters li").count() == 5
    facts = window.page.locator('.details[data-stream="EVENTS"] .facts')
    expect(facts).to_contain_text("Rows not written\nidentical\n3\ndropped\n2", use_inner_text=True, ignore_case=True)
    window.picture("stuck")
    window.page.emulate_media(color_scheme="dark")
    window.page.set_viewport_size({"width": 375, "height": 800})
    expect(window.page.locator(".streams thead")).to_be_hidden()
    assert window.page.evaluate("document.documentElement.scrollWidth") <= 375
    window.picture("stuck-dark-narrow")
    window.page.get_by_role("button", name="EVENTS").click()
    window.page.set_viewport_size({"width": 375, "height": 1100})
    window.page.evaluate("scrollTo(0, 0)")
    window.picture("stuck-dark-narrow-top", whole=False)


REFUSED = 'PostgreSQL cannot be reached: connection to server at "db", port 5432 failed: Connection refused'
NO_NATS = "NATS cannot be reached (nats://n1:4222: Connection refused): the worker is reconnecting"
WAITING = {"state": "waiting", "reason": REFUSED, "postgres_connected": False}
CUT_OFF = {"state": "disconnected", "reason": NO_NATS, "nats_connected": False}


@pytest.mark.parametrize(
    ("changes", "tells"),
    [(WAITING, "causes"), (CUT_OFF, "problems"), case(WAITING, "problems"), case(CUT_OFF, "causes")],
    ids=["postgres", "nats, one by one", "postgres, one by one", "nats"],
)
def test_one_cause_is_shown_once(window: Window, service: Service, changes: dict[str, Any], tells: str) -> None:
    """For all streams together and since when, also of a service that tells them one by one; a phone has room left."""
    service.answer = status(**dict.fromkeys(TABLES, changes))
    began = ""
    if tells == "causes":
        cause = {"who": "all 7 streams", "streams": [*TABLES], "text": changes["reason"], "since": NOW - 95}
        service.answer["causes"] = [cause]
        began = ", since "
    window.page.set_viewport_size({"width": 390, "height": 844})
    window.page.goto(service.url)
    expect(window.page.locator("#verdict")).to_have_text("Not ready: 7 of 7 streams need attention")
    expect(window.page.locator("#problems li")).to_have_count(1)
    assert window.text("#problems").startswith(f"all 7 streams {changes['reason']}{began}")
    assert not began or re.search(r", since \d\d:\d\d:\d\d$", window.text("#problems"))
    box = window.page.locator("#health").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 844 / 3
    for scheme in ("light", "dark"):
        window.page.emulate_media(color_scheme=scheme)
        window.picture(f"one-cause-{changes['state']}-{scheme}-390", whole=False)
        window.page.set_viewport_size({"width": 1360, "height": 900})
        window.picture(f"one-cause-{changes['state']}-{scheme}")
        window.page.set_viewport_size({"width": 390, "height": 844})


def test_on_a_phone_the_stream_in_trouble_comes_first(window: Window, service: Service) -> None:
    """Also with a reason each that is long: the first of them is seen without scrolling; a wrong file is no stream."""
    texts = {name: f"{name}: " + "what is wrong here takes many words to tell, " * 12 for name in ("SWEEP", "LOGS")}
    service.answer = status(**{name: {"state": "parked", "reason": text} for name, text in texts.items()})
    service.answer["problems"].append({"stream": "configuration", "text": "the changed settings are wrong"})
    window.page.set_viewport_size({"width": 390, "height": 844})
    window.page.goto(service.url)
    expect(window.page.locator("#verdict")).to_have_text("Not ready: 2 of 7 streams need attention")
    places = {
        name: window.page.locator(f'.row[data-stream="{name}"]').bounding_box() or {"y": 0.0, "height": 0.0}
        for name in TABLES
    }
    assert sorted(TABLES, key=lambda name: places[name]["y"])[:2] == ["SWEEP", "LOGS"]
    assert places["SWEEP"]["y"] < 844 * 0.6
    lanes = window.page.locator("#lanes").bounding_box()
    assert lanes is not None
    assert lanes["y"] > max(place["y"] for place in places.values())
    window.picture("parked-390", whole=False)
    window.page.set_viewport_size({"width": 1360, "height": 900})
    window.picture("parked")


def test_picture_and_table_agree_on_who_is_away(window: Window, service: Service) -> None:
    """A consumer that is paused is no NATS that is away: no connection is drawn as cut that the details know."""
    paused = {"state": "disconnected", "reason": "consumer eventwriter-logs of stream LOGS is paused"}
    service.answer = status(LOGS=paused, EVENTS=CUT_OFF)
    window.page.goto(service.url)
    expect(window.page.locator('.row[data-stream="EVENTS"]')).to_contain_text("NATS away")
    assert "NATS: held up" in row(window, "LOGS")
    told = {name: window.page.locator(f'#lanes svg[aria-label^="{name}:"]').text_content() for name in TABLES}
    assert "not connected" in (told["EVENTS"] or "")
    assert "not connected" not in (told["LOGS"] or "")
    assert stuck(window, "LOGS") == stuck(window, "EVENTS") == "left"


@pytest.mark.parametrize(
    ("rates", "spikes"),
    [
        ([100.0] * 170 + [50_000.0] * 3 + [110.0] * 7, 3),
        ([100.0, 140.0, 250.0] * 60, 0),
        case([0.0] * 170 + [900.0] * 10, 0),
    ],
    ids=["spike", "usual", "rare"],
)
def test_a_spike_does_not_flatten_what_is_usual(
    window: Window, service: Service, rates: list[float], spikes: int
) -> None:
    """It is marked, and what comes every day keeps its height; the highest value is told all the same."""
    service.answer = status(LOGS={"history": {"step": 5.0, "rows_per_s": rates, "lag": [0.0] * 180}})
    window.page.goto(service.url)
    window.page.get_by_role("button", name="LOGS").click()
    figure = window.page.locator('.details[data-stream="LOGS"] figure').first
    expect(figure).to_contain_text(f"highest {max(rates):,.0f} rows/s")
    assert (figure.locator(".spikes").get_attribute("d") or "").count("M") == spikes
    heights = re.findall(r"L[\d.]+ ([\d.]+)", figure.locator(".line").get_attribute("d") or "")
    assert min(map(float, heights)) < 5, "of 96, from above"
    if spikes:
        assert float(heights[0]) < 48
    window.picture(f"spike-{spikes}")


def test_a_dead_letter_has_an_address(window: Window, service: Service) -> None:
    """What is opened with it shows that letter and how to see the payload, and changes nothing; any name is one."""
    names = ("EVENTS", "a/b #?%&'<i>")
    letter = {"time": NOW, "reason": "malformed", "detail": "not JSON", "subject": "events.x"}
    letters = [letter | {"sequence": number} for number in (17, 16)]
    service.answer = status(EVENTS={"dead_letters": letters})
    service.answer["streams"][names[1]] = stream(names[1], 1, dead_letters=letters)
    for name in names:
        window.page.goto("about:blank")
        window.page.goto(service.url)
        opens = window.page.locator(".row", has=window.page.get_by_role("button", name=name, exact=True))
        opens.get_by_role("button").click()
        link = window.page.locator(".details:visible .letters a").last
        address = link.evaluate("e => e.href")
        link.click()
        current = window.page.locator(".letters li[aria-current]")
        expect(current).to_contain_text("sequence 16")
        window.page.goto("about:blank")
        window.page.goto(address)
        expect(current).to_have_count(1)
        expect(current).to_contain_text("eventwriter dlq show NUMBER")
        expect(current).to_contain_text(f"eventwriter dlq list --stream {name} --reason malformed")
        expect(opens.get_by_role("button")).to_have_attribute("aria-expanded", "true")
    window.picture("letter")


def test_what_a_batch_took_is_told(window: Window, service: Service) -> None:
    """How it was written, and up to where the ledger is; of a service that does not know, nothing."""
    known = {"batch_way": "upsert", "ledger": {"highest": 1234567, "ranges": 3}}
    service.answer = status(SWEEP=known, LOGS={"batch_way": "copy, staged", "ledger": {}})
    window.page.goto(service.url)
    for name in ("SWEEP", "LOGS", "EVENTS"):
        window.page.get_by_role("button", name=name).click()
    facts = {name: window.page.locator(f'.details[data-stream="{name}"] .facts') for name in TABLES}
    expect(facts["SWEEP"]).to_contain_text("upsert, by way of a temporary table")
    expect(facts["SWEEP"]).to_contain_text("done up to sequence 1,234,567, in 3 ranges")
    expect(facts["LOGS"]).to_contain_text("copy, staged")
    assert "done up to" not in facts["LOGS"].inner_text() + facts["EVENTS"].inner_text()


def test_dead_letters_have_a_rate(window: Window, service: Service) -> None:
    """How many there were in the last minute stands beside how many there are; none is not said."""
    messages = status()["streams"]["SWEEP"]["messages"] | {"deadlettered": 1234}
    service.answer = status(
        SWEEP={"messages": messages, "dead_letters_per_minute": 56}, EVENTS={"dead_letters_per_minute": 3}
    )
    window.page.goto(service.url)
    expect(window.page.locator('.row[data-stream="SWEEP"]')).to_contain_text("56 in the last minute")
    assert "1,234 dead letters, 59 of them in the last minute" in window.text("#totals")
    assert "last minute" not in row(window, "LOGS")
    window.picture("rising")
    window.page.set_viewport_size({"width": 390, "height": 844})
    places = {name: window.page.locator(f'.row[data-stream="{name}"]').bounding_box() or {"y": 0.0} for name in TABLES}
    assert sorted(TABLES, key=lambda name: places[name]["y"])[:2] == ["SWEEP", "EVENTS"], "on a phone they come first"
    window.picture("rising-390", whole=False)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_screen(window: Window, service: Service, scheme: Any) -> None:
    """Nothing is cut off, from phone to wall, also with a row open; texts stand out from what is behind them."""
    window.page.emulate_media(color_scheme=scheme)
    window.page.set_viewport_size({"width": 320, "height": 800})
    wide = {"columns_omitted": [f"dropped_attributes_count_{number}" for number in range(9)]}
    service.answer = status(LOGS={"reason": "x" * 300, "state": "parked"} | wide, OTEL_METRICS=wide)
    window.page.goto(service.url)
    window.page.get_by_role("button", name="LOGS").click()
    expect(window.page.locator(".details .facts").last).to_be_visible()
    for width in (320, 375, 768, 1024, 1130, 1920):
        window.page.set_viewport_size({"width": width, "height": 800})
        assert window.page.evaluate("document.documentElement.scrollWidth") <= width
        assert window.page.evaluate(CONTRAST) >= 4.5, width
        if width >= 375:
            expect(window.page.locator("#lanes"), "no name in the picture is cut").not_to_contain_text("…")
        window.picture(f"{scheme}-{width}")


CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (c) => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const light = (colour) => colour.slice(0, 3).map((c) => linear(c / 255))
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  let worst = 21;
  for (const element of document.querySelectorAll('body *')) {
    const texts = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
    if (element.closest('svg') || !element.offsetParent || !texts.length) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    worst = Math.min(worst, (Math.max(a, b) + .05) / (Math.min(a, b) + .05));
  }
  return worst;
}"""
"""The worst contrast of a visible text to its background (WCAG 2.1, 1.4.3)."""


def test_when_the_service_falls_silent_the_last_values_stay(window: Window, service: Service) -> None:
    """It says so, greys what it knew, and goes on when there are answers again."""
    window.page.goto(service.url)
    expect(window.page.locator(".row")).to_have_count(7)
    service.silent = True
    expect(window.page.locator("#silent")).to_be_visible()
    expect(window.page.locator("body")).to_have_class("stale")
    assert "No answer since" in window.text("#silence")
    assert "running" in row(window, "LOGS")
    window.picture("silent")
    service.silent = False
    expect(window.page.locator("#silent")).to_be_hidden()
    expect(window.page.locator("body")).not_to_have_class("stale")
    # A browser itself notes every answer that is not 200.
    window.errors[:] = [error for error in window.errors if "503" not in error]


def test_a_service_that_never_answered_is_said_to_be_away(window: Window, service: Service) -> None:
    """Opened too early, the page waits."""
    service.silent = True
    window.page.goto(service.url)
    expect(window.page.locator("#silent")).to_be_visible()
    assert "No answer yet" in window.text("#silence")
    service.silent = False
    expect(window.page.locator(".row")).to_have_count(7)
    window.errors[:] = [error for error in window.errors if "503" not in error]


def test_texts_from_messages_stay_texts(window: Window, service: Service) -> None:
    """Names, reasons and dead letters that look like markup are shown letter for letter."""
    letter = {"time": NOW, "reason": HOSTILE, "detail": HOSTILE, "subject": HOSTILE, "sequence": HOSTILE}
    letter["view"] = HOSTILE
    service.answer = status()
    service.answer["streams"] = {
        HOSTILE: stream(
            HOSTILE,
            0,
            state=HOSTILE,
            reason=HOSTILE,
            subjects=[HOSTILE],
            table=HOSTILE,
            durable=HOSTILE,
            dead_letters=[letter],
            rejects={HOSTILE: 1},
            errors={HOSTILE: 1},
            consumer_pending=None,
            processes=[{"name": HOSTILE, "state": HOSTILE, "pid": HOSTILE}],
        ),
        "__proto__": stream("__proto__", 1),
    }
    service.answer |= {"problems": [{"stream": HOSTILE, "text": HOSTILE}], "ready": False, "version": HOSTILE}
    window.page.goto(service.url)
    window.page.locator(".row button").first.click()
    expect(window.page.locator(".letters b")).to_have_text(HOSTILE)
    assert window.page.locator(".letters p").inner_text() == HOSTILE
    assert window.page.locator(".letters pre").count() == 0, "before it is opened"
    window.page.locator(".letters a").click()
    assert window.page.locator(".letters pre").inner_text() == HOSTILE
    assert HOSTILE in window.text("#problems")
    assert window.page.locator("img").count() == 0
    assert window.page.locator("script").count() == 1
    assert window.page.evaluate("document.querySelector('table').scrollWidth") <= 1360 - 2 * 24
    window.picture("hostile")


@pytest.mark.parametrize(
    "answer",
    [
        {"streams": {}},
        case({"streams": {"LOGS": {}}}),
        case({"streams": {"LOGS": {"state": "new-state", "messages": None, "history": None, "dead_letters": None}}}),
        {
            "streams": {"LOGS": {"history": {"step": 0, "rows_per_s": [None], "lag": "x"}, "subjects": 1}},
            "problems": None,
        },
    ],
    ids=["none", "empty", "nulls", "odd"],
)
def test_what_is_missing_is_left_open(window: Window, service: Service, answer: Any) -> None:
    """A service that knows little yet, or a newer one, is shown as far as it goes."""
    service.answer = answer
    window.page.goto(service.url)
    expect(window.page.locator("#verdict")).not_to_contain_text("Asking")
    for button in window.page.locator(".row button").all():
        button.click()
    expect(window.page.locator("#silent")).to_be_hidden()


def test_it_works_without_a_mouse(window: Window, service: Service) -> None:
    """Tab reaches the streams, arrows move on, Enter and Space open and close, and where one is can be seen."""
    window.page.goto(service.url)
    expect(window.page.locator(".row")).to_have_count(7)
    window.page.keyboard.press("Tab")
    first = window.page.get_by_role("button", name="TELEMETRY")
    expect(first).to_be_focused()
    outline = window.page.locator(".row").first.evaluate("e => getComputedStyle(e).outlineStyle")
    assert outline == "solid"
    details = window.page.locator(f"#{first.get_attribute('aria-controls')}")
    expect(details).to_be_hidden()
    window.page.keyboard.press("Enter")
    expect(details).to_be_visible()
    expect(first).to_have_attribute("aria-expanded", "true")
    window.page.keyboard.press("Space")
    expect(details).to_be_hidden()
    window.page.keyboard.press("ArrowDown")
    expect(window.page.get_by_role("button", name="EVENTS")).to_be_focused()
    service.answer = status(EVENTS={"batch_messages": 4711})
    expect(window.page.locator('.row[data-stream="EVENTS"]')).to_contain_text("4,711")
    expect(window.page.get_by_role("button", name="EVENTS")).to_be_focused()


def test_a_chart_tells_its_values(window: Window, service: Service) -> None:
    """Over a point of the large chart its time and value are read out; unknown values leave a gap."""
    window.page.goto(service.url)
    window.page.get_by_role("button", name="EVENTS").click()
    svg = window.page.locator("figure svg:visible").first
    svg.hover(position={"x": 2, "y": 20})
    assert "unknown" in window.text("figure:visible >> nth=0")
    svg.hover(position={"x": 300, "y": 20})
    assert re.search(r"\d\d:\d\d:\d\d: [\d,]+ rows/s", window.text("figure:visible >> nth=0"))
    window.picture("details")


def test_shortly_after_the_start_there_is_something_to_see(window: Window, service: Service) -> None:
    """Few points fill the charts, which say from when they are; a process that is gone has neither pid nor memory."""
    gone = {"name": "LOGS", "pid": 0, "state": "parked", "restarts": 1, "rss_bytes": 0, "uptime": 0.0}
    history = {"step": 5.0, "rows_per_s": [None, *[100.0] * 12], "lag": [None, *[0.0] * 12]}
    service.answer = status(LOGS={"history": history, "processes": [gone], "state": "parked", "reason": "no"})
    window.page.goto(service.url)
    window.page.get_by_role("button", name="LOGS").click()
    details = window.page.locator('.details[data-stream="LOGS"]')
    expect(details.locator("figure").first).to_contain_text("1 min ago")
    expect(details.locator(".facts")).to_contain_text("parked, 1 restart")
    assert "pid" not in details.inner_text()
    begin = details.locator("figure .line").first.evaluate("e => e.getBBox().x")
    assert begin < 200, "of 1000"
