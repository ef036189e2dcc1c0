"""Messages of the trade through a running service: each row and each dead letter, and nothing stops for them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from eventwriter import registry
from eventwriter.embedded import free_port
from eventwriter.stream import Message
from fix_monitor import Endpoint
from fix_service import World, wait_until
from traffic import Publication

SAMPLES = Path(__file__).resolve().parents[1] / "support" / "samples" / "cases"


def test_each_sample_is_rows_or_dead_letters_and_the_service_stays_ready(world: World) -> None:
    """All streams at once, each sample between others: what ``decode`` says of it alone is in the tables."""
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    service = world.start(EVENTWRITER_HTTP__LISTEN=endpoint.address)
    wait_until(partial(endpoint.answers, "/readyz", 200), "readiness")
    declared = registry.load()
    published: dict[str, list[Publication]] = {}
    rows, letters = dict.fromkeys(declared, 0), dict.fromkeys(declared, 0)
    for number, case in enumerate(json.loads((SAMPLES / "cases.json").read_text()), 1):
        name, payload = case["stream"], (SAMPLES / case["file"]).read_bytes()
        subject, headers = case.get("subject", f"{name.lower().replace('_', '.')}.x"), case.get("headers")
        found = declared[name].decode(Message(subject, payload, number, 1_765_535_400_000_000_000 + number, headers))
        rows[name] += len(found.rows)
        letters[name] += len(found.rejects)
        published.setdefault(name, []).append(Publication(subject, payload, (), len(found.rejects), headers))
    for name, messages in published.items():
        world.publish(name, messages)
    with endpoint.watching():
        world.wait_settled()
    assert {name: world.query(f"SELECT count(*) FROM {declared[name].table}")[0][0] for name in rows} == rows
    query = "SELECT count(*) FROM eventwriter.dead_letters WHERE logical_stream = %s"
    assert {name: world.query(query, name)[0][0] for name in letters} == letters
    assert {status for _, status, _ in endpoint.seen} <= {200}
    for name, counts in letters.items():
        assert (endpoint.value("rows_written_total", stream=name) or 0) == rows[name]
        assert sum(endpoint.status()["streams"][name]["rejects"].values()) == counts
    assert world.stop(service) == 0
