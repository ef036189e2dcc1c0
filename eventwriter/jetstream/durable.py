"""What a durable consumer must be like to serve us: what is refused, what binding puts right, what is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eventwriter.config.loading import StreamConfig

OURS = "eventwriter:"
"""How the description of a consumer that we created begins."""
_UNWANTED = ("headers_only", "priority_groups", "priority_policy", "priority_timeout")
"""Settings with which messages, or their payloads, do not reach us; the server lets us remove them."""


def new_name(config: StreamConfig) -> str:
    """The advice of a new durable: one that takes over the ledger, for another one writes everything a second time."""
    key = f"streams.{config.name}"
    return f"set {key}.durable to a new name and {key}.continues to {config.durable}"


def begins_anew(config: StreamConfig, old: str) -> str:
    """What to tell of a durable without a ledger, where that of ``old`` knows what is written."""
    return (
        f"durable {config.durable} begins a ledger of its own: what {old} wrote and stream {config.stream} still holds "
        f'is written a second time; streams.{config.name}.continues = "{old}" goes on with that ledger'
    )


def push(config: StreamConfig) -> str:
    """What to tell of a consumer that delivers without being asked."""
    return f"consumer {config.durable} of stream {config.stream} is a push consumer: {new_name(config)}"


def refusal(current: Mapping[str, Any], config: StreamConfig) -> str:
    """Why a consumer with this configuration cannot serve us, with the remedy; empty if it can."""
    name = f"consumer {config.durable} of stream {config.stream}"
    if current.get("deliver_subject"):
        return push(config)
    policy = "explicit" if config.writer.ack == "each" else "all"
    if current.get("ack_policy") != policy:
        return (
            f"{name} has ack policy {current.get('ack_policy')}, which cannot be changed, and writer.ack = "
            f'"{config.writer.ack}" needs {policy}: {new_name(config)}, or change streams.{config.name}.ack'
        )
    if skipping := _skipping(current):
        return (
            f"{name} has deliver policy {skipping}, which leaves out messages and cannot be changed: {new_name(config)}"
        )
    return ""


def _skipping(current: Mapping[str, Any]) -> str:
    """The deliver policy, if messages that nobody has written may lie before where the consumer begins."""
    policy = str(current.get("deliver_policy", "all"))
    if policy == "by_start_sequence":
        # We begin there ourselves when a consumer was deleted, and what lies before is in the ledger.
        ours = str(current.get("description", "")).startswith(OURS)
        return "" if ours or int(current["opt_start_seq"]) <= 1 else policy
    return "" if policy == "all" else policy


def filters(subjects: Sequence[str]) -> dict[str, Any]:
    """The settings of a consumer that let these subjects through."""
    return {"filter_subject": subjects[0]} if len(subjects) == 1 else {"filter_subjects": list(subjects)}


def repaired(current: Mapping[str, Any], config: StreamConfig) -> dict[str, Any]:
    """The configuration with all that keeps messages or payloads from us put right."""
    wanted = {k: v for k, v in current.items() if k not in ("filter_subject", "filter_subjects", *_UNWANTED)}
    return wanted | filters(config.subjects)


def incomplete(current: Mapping[str, Any], config: StreamConfig) -> tuple[str, ...]:
    """The settings that keep messages, or their payloads, from us until the consumer is bound anew."""
    found = [key for key in _UNWANTED if current.get(key)]
    if {*current.get("filter_subjects", ()), current.get("filter_subject")} - {None} != {*config.subjects}:
        found.append("filter_subjects")
    return tuple(found)


def warnings(current: Mapping[str, Any], config: StreamConfig) -> tuple[str, ...]:
    """What is legal in a consumer's configuration and dangerous to its messages."""
    found = []
    limit = current.get("max_deliver", -1)
    if limit > 0:
        found.append(f"max_deliver is {limit}, so a message is lost after {limit} deliveries; set -1")
    if current.get("backoff"):
        found.append("backoff overrides ack_wait; remove it")
    if current.get("inactive_threshold"):
        found.append("inactive_threshold deletes the consumer when we are away; remove it")
    if current.get("replay_policy", "instant") != "instant":
        found.append("replay_policy delivers a backlog no faster than it was published")
    return tuple(f"consumer {config.durable}: {text}" for text in found)
