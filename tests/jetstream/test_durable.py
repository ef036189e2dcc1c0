"""What a consumer's configuration means for us, setting by setting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from consumers import STREAM
from eventwriter.jetstream.durable import incomplete, refusal, repaired, warnings

GOOD = {"ack_policy": "explicit", "deliver_policy": "all", "filter_subject": "logs.>"}
OURS = {"description": "eventwriter: LOGS into logs"}
ADVICE = "set streams.LOGS.durable to a new name and streams.LOGS.continues to eventwriter-logs"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, ""),
        ({"deliver_policy": "by_start_sequence", "opt_start_seq": 1}, ""),
        ({"deliver_policy": "by_start_sequence", "opt_start_seq": 2}, "deliver policy by_start_sequence"),
        ({"deliver_policy": "by_start_sequence", "opt_start_seq": 2} | OURS, ""),
        ({"deliver_policy": "by_start_time", "opt_start_time": "2020-01-01T00:00:00Z"} | OURS, "by_start_time"),
        ({"deliver_policy": "new"} | OURS, "deliver policy new"),
        ({"deliver_policy": "last"}, "deliver policy last"),
        ({"deliver_policy": "last_per_subject"}, "deliver policy last_per_subject"),
        ({"ack_policy": "none"}, "ack policy none"),
        ({"ack_policy": "all"}, "ack policy all"),
        ({"deliver_subject": "x"}, "is a push consumer"),
    ],
    ids=lambda each: ",".join(each) if isinstance(each, dict) else "",
)
def test_what_is_refused(settings: dict[str, Any], said: str) -> None:
    """What cannot be changed and leaves out messages, with the one remedy that writes nothing a second time."""
    reason = refusal(GOOD | settings, STREAM)
    assert said in reason
    assert (ADVICE in reason) == bool(said)


def test_ack_all_asks_for_its_own_policy() -> None:
    """Which way acknowledgements go is the configuration's choice."""
    everything = replace(STREAM, writer=replace(STREAM.writer, ack="all"))
    assert "needs all" in refusal(GOOD, everything)
    assert refusal(GOOD | {"ack_policy": "all"}, everything) == ""


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, ()),
        ({"headers_only": True}, ("headers_only",)),
        ({"headers_only": False}, ()),
        ({"priority_groups": ["a"], "priority_policy": "overflow"}, ("priority_groups", "priority_policy")),
        ({"filter_subject": "logs.a"}, ("filter_subjects",)),
        ({"filter_subject": None, "filter_subjects": ["logs.>"]}, ()),
        ({"filter_subject": None}, ("filter_subjects",)),
        ({"max_batch": 1, "max_deliver": 3}, ()),
    ],
    ids=str,
)
def test_what_is_put_right(settings: dict[str, Any], found: tuple[str, ...]) -> None:
    """What keeps messages or payloads back, and nothing else; the rest stays as somebody set it."""
    current = {key: value for key, value in (GOOD | {"metadata": {"a": "b"}} | settings).items() if value is not None}
    assert incomplete(current, STREAM) == found
    wanted = repaired(current, STREAM)
    assert incomplete(wanted, STREAM) == ()
    assert wanted["metadata"] == {"a": "b"}
    assert wanted.get("max_batch") == settings.get("max_batch")


@pytest.mark.parametrize("setting", ["max_deliver", "backoff", "inactive_threshold", "replay_policy"])
def test_what_is_warned_of(setting: str) -> None:
    """What is legal and dangerous, or slow."""
    value = {"max_deliver": 3, "backoff": [1], "inactive_threshold": 1, "replay_policy": "original"}[setting]
    (text,) = warnings(GOOD | {setting: value}, STREAM)
    assert text.startswith(f"consumer eventwriter-logs: {setting} ")
    assert warnings(GOOD | {"max_deliver": -1, "replay_policy": "instant"}, STREAM) == ()
