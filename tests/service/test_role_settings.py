"""Settings that a role or a database may have for those who connect: they change nothing."""

from __future__ import annotations

import json

from fix_service import World, only

_SETTINGS = (
    "datestyle = German", "intervalstyle = sql_standard", "timezone = 'Asia/Kathmandu'", "quote_all_identifiers = on",
    "extra_float_digits = -15", "bytea_output = escape", "standard_conforming_strings = off", "array_nulls = off",
    "row_security = off", "client_min_messages = debug1", "default_transaction_isolation = serializable",
    "default_transaction_deferrable = on", "exit_on_error = on",
)  # fmt: skip
_COMMANDS = (
    ("check",), ("verify",), ("schema", "check"), ("schema", "version"), ("schema", "apply", "--dry-run"),
    ("schema", "apply"), ("dlq", "list"), ("dlq", "list", "--summary"), ("dlq", "list", "--output", "json"),
    ("dlq", "show", "1"), ("dlq", "export"),
)  # fmt: skip


def test_they_change_nothing(world: World) -> None:
    """Each stream is written, and each command says the same as without them."""
    world.traffic(["LOGS", "EVENTS", "OTEL_METRICS"], count=30, broken=0.3)
    world.environment |= only("LOGS", "EVENTS", "OTEL_METRICS")
    service = world.start()
    world.wait_settled()
    assert world.stop(service) == 0
    plain = [world.run(*command).stdout for command in _COMMANDS]

    ((name,),) = world.query("SELECT quote_ident(current_database())")
    for setting in _SETTINGS:
        world.execute(f"ALTER DATABASE {name} SET {setting}")
    world.traffic(["LOGS", "EVENTS", "OTEL_METRICS"], count=30, broken=0.0)
    service = world.start()
    world.wait_settled()
    assert world.stop(service) == 0
    world.assert_exact()
    for command, before in zip(_COMMANDS, plain, strict=True):
        done = world.run(*command)
        if command[0] in ("dlq", "schema"):
            assert done.stdout == before, command
    letters = json.loads(world.run("dlq", "list", "--output", "json").stdout)
    done = world.run("dlq", "replay", *[str(letter["id"]) for letter in letters], check=False)
    assert done.returncode == 65, done.stderr  # they are as they were
