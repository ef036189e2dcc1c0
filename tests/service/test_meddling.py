"""Tables with constraints, triggers and rules of somebody else's: what was published is a row, equal, or a letter."""

from __future__ import annotations

import json

import pytest

from eventwriter.embedded import free_port
from fix_monitor import Endpoint
from fix_service import World, only, wait_until
from traffic import Publication

MEDDLERS = """
CREATE UNIQUE INDEX once ON logs (lower(body)) WHERE severity_text = 'INFO';
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.body = 'quiet' THEN RETURN NULL; END IF;
    IF NEW.body = 'frozen' THEN RAISE EXCEPTION 'cannot insert into frozen chunk' USING ERRCODE = '0A000'; END IF;
    IF NEW.body = 'broken' THEN RAISE EXCEPTION 'internal' USING ERRCODE = 'XX000', HINT = 'thaw it'; END IF;
    RETURN NEW; END $$;
CREATE TRIGGER meddle BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION meddle();
"""
BODIES = ["broken", "one", "ONE", "quiet", "one", "frozen", "two", "two", "three"]


@pytest.mark.parametrize("size", ["1", "10000"], ids=["a batch each", "one batch"])
def test_what_was_published_adds_up(world: World, size: str) -> None:
    """From the first message on, into an empty table: neighbours are rows at once, and all that is told is true."""
    world.execute(MEDDLERS)
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    messages = [
        json.dumps(
            {
                "timestamp": 1_765_535_400_000_000_000 + len(body),
                "observed_timestamp": 1_765_535_400_000_000_000,
                "severity_text": "INFO",
                "body": body,
            }
        ).encode()
        for body in BODIES
    ]
    world.publish("LOGS", [Publication("logs.app", payload, (), 0) for payload in messages])
    environment = only("LOGS") | {"EVENTWRITER_WRITER__BATCH_MESSAGES": size}
    service = world.start(**environment, EVENTWRITER_HTTP__LISTEN=endpoint.address)
    world.wait_settled()
    assert world.query("SELECT body FROM logs ORDER BY 1") == [("one",), ("three",), ("two",)]
    letters = world.query("SELECT sequence, reason, sqlstate, detail FROM eventwriter.dead_letters ORDER BY 1")
    assert [letter[:3] for letter in letters] == [
        (1, "refused", "XX000"), (3, "conflict", "23505"), (4, "dropped", None), (6, "refused", "0A000")
    ]  # fmt: skip
    assert letters[0][3] == "internal, hint: thaw it"
    assert letters[2][3] == "table logs left the row out, without an error; what may do so: trigger meddle"
    assert '"once"' in letters[1][3]
    wait_until(lambda: endpoint.value("rows_written_total", stream="LOGS") == 3, "the metrics")
    for reason, count in (("identical", 2), ("conflict", 1), ("dropped", 1)):
        assert endpoint.value("rows_skipped_total", stream="LOGS", reason=reason) == count
    assert endpoint.answers("/readyz", 200)
    stream = endpoint.status()["streams"]["LOGS"]
    assert stream["rows_skipped"] == {"identical": 2, "conflict": 1, "dropped": 1}
    assert (stream["messages"]["written"], stream["messages"]["deadlettered"]) == (5, 4)
    assert "trigger meddle" in str(stream["dead_letters"])
    assert "the table left out 1 rows without an error" in world.log
    assert world.query("SELECT rows_written FROM eventwriter.ledger") == [(3,)]
    assert world.stop(service) == 0
