"""Missing and gone from the stream: said once, to everybody who looks, until a person takes note."""

from __future__ import annotations

import json

from fix_failover import TOLD_WITHIN, Fallible, missing
from fix_service import only, wait_until


def test_what_is_gone_from_the_stream_is_told_until_it_is_accepted(fallible: Fallible) -> None:
    """The database went back to message 50, the stream begins at 251: 200 are lost, the rest is there again."""
    world, endpoint = fallible.world, fallible.endpoint
    service = world.start(**only("LOGS", "SWEEP"))
    world.traffic(["LOGS", "SWEEP"], count=50, broken=0)
    world.wait_settled()
    fallible.mark("restored")
    world.traffic(["LOGS"], count=250, broken=0)
    world.wait_settled()
    world.call(lambda client: client.jetstream().purge_stream("LOGS", keep=50))
    gone = {n for m in world.published["LOGS"][50:250] for n in m.records}
    fallible.go_back("restored")
    wait_until(lambda: endpoint.value("messages_missing", stream="LOGS") == 200, world.log[-5000:], TOLD_WITHIN)
    wait_until(lambda: missing(world) == {"LOGS": gone}, lambda: f"the rest\n{world.log[-5000:]}")
    assert endpoint.value("messages_missing", stream="SWEEP") == 0
    lines = [line for line in world.log.splitlines() if "gone from the stream" in line]
    assert len(lines) == 1, lines
    assert "51" in lines[0]
    assert "250" in lines[0]
    assert json.loads(lines[0])["level"] == "error"
    assert endpoint.answers("/status", 200, "200")
    checked = ""

    def asked() -> bool:  # again, for on a busy machine the time may be up before all streams have been looked at
        nonlocal checked
        checked = world.run("check", check=False).stdout
        return "ledger accept" in checked

    wait_until(asked, lambda: f"what is lost in\n{checked}")
    assert "51" in checked
    # A new start says it again to nobody, but still shows it.
    assert world.stop(service) == 0
    service = world.start(**only("LOGS", "SWEEP"))
    wait_until(lambda: endpoint.value("messages_missing", stream="LOGS") == 200, "the metric", TOLD_WITHIN)
    assert sum("gone from the stream" in line for line in world.log.splitlines()) == 1
    accepted = world.run("ledger", "accept", "--stream", "LOGS")
    assert "51" in accepted.stdout
    wait_until(lambda: endpoint.value("messages_missing", stream="LOGS") == 0, "accepted", TOLD_WITHIN)
    assert "gone from the stream" not in world.run("check", check=False).stdout
    world.traffic(["LOGS", "SWEEP"], count=20, broken=0)
    wait_until(lambda: missing(world) == {"LOGS": gone}, "the service goes on")
    assert world.stop(service) == 0


def test_what_nobody_wrote_before_it_aged_out_is_told_as_well(fallible: Fallible) -> None:
    """The service was stopped while the stream dropped messages that it had never delivered."""
    world, endpoint = fallible.world, fallible.endpoint
    service = world.start(**only("LOGS"))
    world.traffic(["LOGS"], count=50, broken=0)
    world.wait_settled()
    assert world.stop(service) == 0
    world.traffic(["LOGS"], count=100, broken=0)
    world.call(lambda client: client.jetstream().purge_stream("LOGS", keep=30))
    gone = {n for m in world.published["LOGS"][50:120] for n in m.records}
    service = world.start(**only("LOGS"))
    wait_until(lambda: missing(world) == {"LOGS": gone}, "what is left")
    wait_until(lambda: endpoint.value("messages_missing", stream="LOGS") == 70, world.log[-5000:], TOLD_WITHIN)
    assert world.stop(service) == 0
