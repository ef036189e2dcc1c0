"""A new durable that goes on with the ledger of the old one: nothing twice, nothing missing."""

from __future__ import annotations

import pytest

from fix_failover import load
from fix_service import CRASHED, World, only, wait_until

OLD, NEW = "eventwriter-logs", "logs-2"
RENAMED = {"EVENTWRITER_STREAMS__LOGS__DURABLE": NEW}
CONTINUED = RENAMED | {"EVENTWRITER_STREAMS__LOGS__CONTINUES": OLD}
QUICK = {"EVENTWRITER_WRITER__ACK_WAIT": "1s"}


def durables(world: World) -> set[str]:
    """The consumers of LOGS."""
    found = world.call(lambda client: client.jetstream().consumers_info("LOGS"))
    return {info.name for info in found}


@pytest.mark.parametrize("how", ["continues", "ledger copy"])
def test_a_durable_that_is_renamed_writes_nothing_twice(world: World, how: str) -> None:
    """What the old one wrote is known, what came meanwhile is written, and the old consumer is left alone."""
    first = world.start(**only("LOGS"))
    world.traffic(["LOGS"], count=150)
    world.wait_settled()
    assert world.stop(first) == 0
    world.traffic(["LOGS"], count=100)
    if how == "ledger copy":
        world.run("ledger", "copy", "--stream", "LOGS", "--from", OLD, "--to", NEW)
    second = world.start(**only("LOGS"), **(CONTINUED if how == "continues" else RENAMED))
    with load(world, ["LOGS"]):
        wait_until(lambda: world.counts("LOGS")[0] > 350, lambda: f"load\n{world.log[-4000:]}")
    wait_until(lambda: sum(world.counts("LOGS")) >= len(world.published["LOGS"]), "all")
    world.assert_exact()
    assert durables(world) == {OLD, NEW}
    assert world.stop(second) == 0
    # And once more, with the setting that is still there.
    third = world.start(**only("LOGS"), **CONTINUED)
    world.traffic(["LOGS"], count=50)
    wait_until(lambda: sum(world.counts("LOGS")) >= len(world.published["LOGS"]), "all")
    world.assert_exact()
    assert world.stop(third) == 0


@pytest.mark.parametrize(
    "point", ["after_pull", pytest.param("after_copy", marks=pytest.mark.long), "after_commit", "in_acks"]
)
def test_what_the_old_one_had_in_hand(world: World, point: str) -> None:
    """Killed before or after its commit, acknowledged or not: the new one writes what is not in the table."""
    world.traffic(["LOGS"], count=100)
    small = {"EVENTWRITER_WRITER__BATCH_MESSAGES": "30"}
    process = world.start("worker", "--stream", "LOGS", EVENTWRITER_CRASH_AT=f"LOGS:{point}", **small)
    assert process.wait(20) == CRASHED
    process = world.start("worker", "--stream", "LOGS", **CONTINUED, **QUICK)
    world.wait_settled()
    world.assert_exact()
    assert world.stop(process) == 0


def test_the_old_one_still_runs(world: World) -> None:
    """While another host is not restarted yet, its workers write nothing any more, and say who goes on."""
    old = world.start("worker", "--stream", "LOGS")
    with load(world, ["LOGS"]):
        wait_until(lambda: world.counts("LOGS")[0] > 200, "load")
        new = world.start("worker", "--stream", "LOGS", **CONTINUED, **QUICK)
        wait_until(lambda: old.poll() is not None, "the old one ends")
        assert old.returncode == 78
        assert NEW in world.log.splitlines()[-1] or f'durable = "{NEW}"' in world.log.replace('\\"', '"')
        before = world.counts("LOGS")[0]
        wait_until(lambda: world.counts("LOGS")[0] > before + 200, "load")
    world.wait_settled()
    world.assert_exact()
    assert world.stop(new) == 0


def test_without_it_a_new_durable_begins_anew_and_that_is_said(world: World) -> None:
    """Everything is written a second time, as the name says: but `check` and the log tell what would avoid it."""
    process = world.start("worker", "--stream", "LOGS")
    world.traffic(["LOGS"], count=50, broken=0)
    world.wait_settled()
    assert world.stop(process) == 0
    said = world.run("check", **RENAMED, check=False).stdout
    assert f'continues = "{OLD}"' in said
    process = world.start("worker", "--stream", "LOGS", **RENAMED)
    records = sum(len(message.records) for message in world.published["LOGS"])
    wait_until(lambda: world.query("SELECT count(*) FROM logs") == [(2 * records,)], "all of it again")
    assert f'continues = "{OLD}"' in world.log.replace('\\"', '"')
    assert world.stop(process) == 0


def test_a_name_that_never_was(world: World) -> None:
    """To continue a ledger that does not exist is a mistake, not a reason to begin anew in silence."""
    world.traffic(["LOGS"], count=20)
    wrong = CONTINUED | {"EVENTWRITER_STREAMS__LOGS__CONTINUES": "eventwriter-lgos"}
    process = world.start("worker", "--stream", "LOGS", **wrong)
    assert process.wait(20) == 78
    assert "there is no ledger of that durable" in world.log
    assert world.query("SELECT count(*) FROM logs") == [(0,)]
    assert world.query("SELECT count(*) FROM eventwriter.ledger") == [(0,)]


def test_a_part_of_a_ledger(world: World) -> None:
    """`--through` for a stream restored to an earlier state: what lies beyond is written under the new durable."""
    process = world.start("worker", "--stream", "LOGS")
    world.traffic(["LOGS"], count=60, broken=0)
    world.wait_settled()
    assert world.stop(process) == 0
    records = [len(message.records) for message in world.published["LOGS"]]
    world.run("ledger", "copy", "--stream", "LOGS", "--from", OLD, "--to", NEW, "--through", "40")
    process = world.start("worker", "--stream", "LOGS", **RENAMED)
    wait_until(lambda: world.query("SELECT count(*) FROM logs") == [(sum(records) + sum(records[40:]),)], "41 to 60")
    assert world.stop(process) == 0
