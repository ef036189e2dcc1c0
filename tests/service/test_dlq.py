"""`eventwriter dlq`: what cannot become a row can be found, looked at and removed."""

from __future__ import annotations

import json

from fix_service import World


def test_dead_letters_from_the_command_line(world: World) -> None:
    """List, show and purge, by stream, reason and age."""
    world.traffic(["LOGS"], count=50, broken=0.2)
    world.traffic(["EVENTS"], count=50, broken=0.2)
    service = world.start()
    world.wait_settled()
    assert world.stop(service) == 0
    broken = sum(message.rejects for message in world.published["LOGS"])

    letters = json.loads(world.run("dlq", "list", "--stream", "logs", "--output", "json").stdout)
    assert len(letters) == broken
    assert {letter["logical_stream"] for letter in letters} == {"LOGS"}
    text = world.run("dlq", "list").stdout
    assert "LOGS" in text
    assert "EVENTS" in text

    shown = json.loads(world.run("dlq", "show", str(letters[0]["id"])).stdout)
    assert shown["subject"].startswith("logs.")
    assert shown.get("payload") or shown.get("payload_base64")

    assert world.run("dlq", "show", "999999", check=False).returncode == 64
    assert "removed 0" in world.run("dlq", "purge", "--older-than", "1h", "--yes").stdout
    assert f"removed {broken}" in world.run("dlq", "purge", "--stream", "LOGS", "--yes").stdout
    rest = world.query("SELECT DISTINCT logical_stream FROM eventwriter.dead_letters")
    assert rest == [("EVENTS",)]
