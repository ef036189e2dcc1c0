"""Turns the JSON configuration of the Go db-event-writer into ours, and says what a person has to look at."""

from __future__ import annotations

import json

from eventwriter.commands import go_json
from eventwriter.commands.go_connections import nats, postgres
from eventwriter.commands.go_streams import streams
from eventwriter.config.naming import one_line
from eventwriter.config.rendering import toml
from eventwriter.errors import ConfigurationError

_IGNORED = {
    "listen_addr": "eventwriter has no gRPC health service; health and metrics are served over HTTP, see [http]",
    "security": "it protected the gRPC health service, which eventwriter does not have",
    "logging": "the log level is --log-level or EVENTWRITER_LOG_LEVEL; logs go to standard error",
    "tenant_id": "eventwriter has no tenants: choose them by the subjects of a stream",
    **dict.fromkeys(("partition", "agent_id", "poller_id", "gateway_id", "kv_address"), "the Go writer ignored it too"),
}


def convert(text: str) -> tuple[str, list[str]]:
    """Our TOML for a db-event-writer JSON file, and notes on what needs attention; neither holds a secret.

    Raises ConfigurationError if the text is not such a file.
    """
    try:
        source = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"not a db-event-writer configuration: {error}") from None
    if not isinstance(source, dict):
        raise ConfigurationError("not a db-event-writer configuration: expected a JSON object")
    notes: list[str] = []
    lines = ["# Converted from a db-event-writer configuration.", ""]
    lines += nats(source, notes)
    lines += postgres(go_json.section(source, "cnpg"), notes)
    lines += streams(source, notes)
    used = {"nats_url", "nats_creds_file", "nats_security", "cnpg", "stream_name", "consumer_name", "subject", "table"}
    used |= {"streams", "domain"}
    notes += [
        f"{one_line(toml(key))} is left out: {_IGNORED.get(key, 'eventwriter knows no such setting')}"
        for key in source
        if key not in used
    ]
    return "\n".join(lines) + "\n", notes
