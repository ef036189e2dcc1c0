"""What the data of an event says, by its shape: GELF, SNMP trap, state change, device lifecycle, OCSF, anything flat.

Values are returned as they come; of the time and the level, in whatever form they are given, the last two functions
make those of the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventwriter.values import EPOCH, INT4_MAX, INT4_MIN, Unfit, shown
from workers._json.convert import clamped, moment

FACTS = ("time", "remote_addr", "host", "level", "severity", "short_message", "version")
Facts = tuple[Any, Any, Any, Any, Any, Any, Any]
"""One value for each of FACTS. A bare tuple, for one is made per event."""

LEVELS = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
"""Names of syslog's levels 0 to 7 (RFC 5424)."""
LEVEL_OF: Mapping[str, int] = {name: level for level, name in enumerate(LEVELS)} | (
    {"emerg": 0, "panic": 0, "crit": 2, "fatal": 2, "err": 3, "warn": 4, "informational": 6, "information": 6}
)
_STATES: Mapping[str, tuple[int, str]] = {"unhealthy": (3, "error"), "healthy": (6, "info"), "unknown": (5, "notice")}
_OCSF: Mapping[int, tuple[int | None, str]] = {
    6: (2, "Fatal"), 5: (2, "Critical"), 4: (3, "High"), 3: (4, "Medium"), 2: (5, "Low"), 1: (6, "Informational"),
    0: (None, "Unknown"), 99: (None, "Other"),
}  # fmt: skip
"""OCSF severity_id → syslog level, and its name."""
_OTLP: Mapping[str, str] = {
    **dict.fromkeys(("resourceLogs", "resource_logs"), "LOGS"),
    **dict.fromkeys(("resourceSpans", "resource_spans"), "OTEL_TRACES"),
    **dict.fromkeys(("resourceMetrics", "resource_metrics"), "OTEL_METRICS"),
}
_SUMMARY_BINDINGS = 16
_SUMMARY_TEXT = 200
"""How much of a trap its summary tells: all of it is in raw_data."""
_LATEST = 9_909_000_000
"""Seconds since 1970, in the year 2283: a number beyond is no time of an event."""


def facts_of(data: Mapping[str, Any], *, wrapped: bool) -> Facts:
    """The facts of an event's data; ``wrapped``: it came in a CloudEvent. Raises Unfit for an OTLP request."""
    get = data.get
    if "short_message" in data and "version" in data:  # GELF 1.1, by far the most frequent
        time = get("timestamp")
        if time is None or (not wrapped and "time" in data):
            time = _time(data, wrapped)
        remote = get("_remote_addr")
        if remote is None or "remote_addr" in data or "remoteAddr" in data:
            remote = _remote(data, wrapped)
        level = get("level")
        severity = get("severity")
        if severity is None and not wrapped:
            severity = _severity_of(level)
        return time, remote, get("host"), level, severity, get("short_message"), get("version")
    if type(get("varbinds")) is list:
        return _trap(data, wrapped)
    if "current_state" in data and ("poller_id" in data or "gateway_id" in data):
        return _state_change(data, wrapped)
    if "device_id" in data and "action" in data:
        return _lifecycle(data, wrapped)
    if "class_uid" in data:
        return _ocsf(data)
    for name, stream in _OTLP.items():
        if type(get(name)) is list:
            raise Unfit("wrong_stream", f"an OTLP request ({name}), which belongs to stream {stream}")
    return _flat(data, wrapped)


def _flat(data: Mapping[str, Any], wrapped: bool) -> Facts:
    level = data.get("level")
    severity = data.get("severity")
    if severity is None and not wrapped:
        severity = _severity_of(level)
    message = _first(data, "short_message", "message", "msg")
    if message is None:
        inner = data.get("data")
        message = _first(inner, "message", "msg", "short_message") if type(inner) is dict else inner
        if type(message) is not str:
            message = None
    host = data.get("host")
    return _time(data, wrapped), _remote(data, wrapped), host, level, severity, message, data.get("version")


def _trap(data: Mapping[str, Any], wrapped: bool) -> Facts:
    origin = _address(data.get("source"))
    host = data.get("host") if origin is None else origin
    remote = _remote(data, wrapped) if origin is None else origin
    message = _first(data, "short_message", "message", "msg", "body")
    if type(message) is not str or not message:
        message = _trap_summary(data["varbinds"])
    return _time(data, wrapped), remote, host, data.get("level"), data.get("severity"), message, data.get("version")


def _trap_summary(varbinds: list[Any]) -> str | None:
    """``oid = TYPE: value`` of the variable bindings, separated by semicolons; None if there are none."""
    parts = [
        f"{_shown(binding.get('oid'))} = {_shown(binding.get('value'))}"
        for binding in varbinds[:_SUMMARY_BINDINGS]
        if type(binding) is dict
    ]
    if len(varbinds) > _SUMMARY_BINDINGS:
        parts.append("…")
    return "; ".join(parts) or None


def _state_change(data: Mapping[str, Any], wrapped: bool) -> Facts:
    kind, name = ("Gateway", data.get("gateway_id")) if data.get("poller_id") is None else ("Poller", data["poller_id"])
    before, now = data.get("previous_state"), data.get("current_state")
    level, severity = _STATES.get(now.strip().lower() if type(now) is str else "", (6, "info"))
    message = f"{kind} {_shown(name)} state changed from {_shown(before)} to {_shown(now)}"
    host, remote = data.get("host"), _first(data, "remote_addr", "source_ip")
    return _time(data, wrapped), remote, name if host is None else host, level, severity, message, "1.1"


def _lifecycle(data: Mapping[str, Any], wrapped: bool) -> Facts:
    device = data.get("device_id")
    action = _shown(data.get("action")).lower()
    if action == "alias_updated":
        message = f"Device {_shown(device)} alias updated{_alias_changes(data.get('metadata'))}"
    else:
        message = f"Device {_shown(device)} {action}"
        if (actor := data.get("actor")) is not None and actor != "":
            message += f" by {_shown(actor)}"
    level, severity = data.get("level"), data.get("severity")
    level = 5 if level is None else level
    severity = "Medium" if severity is None else severity
    return _time(data, wrapped), _remote(data, wrapped), device, level, severity, message, "1.1"


def _alias_changes(metadata: Any) -> str:
    if type(metadata) is not dict:
        return ""
    changes = []
    for what, before, now in (
        ("service", "previous_service_id", "alias_current_service_id"),
        ("ip", "previous_ip", "alias_current_ip"),
        ("collector", "previous_collector_ip", "alias_collector_ip"),
    ):
        old, new = metadata.get(before), metadata.get(now)
        if old or new:
            changes.append(f"{what} " + "→".join(_shown(each) for each in (old, new or "none") if each))
    return f" ({', '.join(changes)})" if changes else ""


def _ocsf(data: Mapping[str, Any]) -> Facts:
    """Open Cybersecurity Schema Framework: severity_id stands for a level, addresses are in nested objects."""
    unmapped = data.get("unmapped")
    host = _inner(data.get("device"), "hostname", "name")
    if host is None:
        host = _inner(unmapped, "host", "gateway_id", "poller_id", "device_id")
    remote = _inner(data.get("src_endpoint"), "ip")
    if remote is None:
        remote = _inner(unmapped, "remote_addr", "source_ip")
    number = data.get("severity_id")
    level, named = _OCSF.get(number, (None, None)) if type(number) is int else (None, None)
    severity = data.get("severity")
    severity = named if severity is None else severity
    message = _first(data, "message", "short_message")
    return _first(data, "time", "timestamp"), remote, host, level, severity, message, data.get("version")


def _inner(value: Any, *names: str) -> Any:
    return _first(value, *names) if type(value) is dict else None


def _time(data: Mapping[str, Any], wrapped: bool) -> Any:
    first, second = ("timestamp", "time") if wrapped else ("time", "timestamp")
    found = data.get(first)
    return data.get(second) if found is None else found


def _remote(data: Mapping[str, Any], wrapped: bool) -> Any:
    if wrapped:
        return _first(data, "_remote_addr", "remote_addr", "remoteAddr")
    return _first(data, "remote_addr", "remoteAddr", "_remote_addr")


def _first(data: Mapping[str, Any], *names: str) -> Any:
    """The value of the first name that is there, and not null."""
    for name in names:
        value = data.get(name)
        if value is not None:
            return value
    return None


def _severity_of(level: Any) -> str | None:
    if type(level) is str:
        text = level.strip().lower()
        level = LEVEL_OF.get(text, int(text) if len(text) == 1 and text in "01234567" else None)
    return LEVELS[level] if type(level) is int and 0 <= level <= 7 else None


def _address(source: Any) -> str | None:
    """The address of ``ip:port``, ``[ipv6]:port``, or of an address alone; None if there is none."""
    if type(source) is not str or not source:
        return None
    if source[0] == "[":
        return source[1:].partition("]")[0] or None
    if source.count(":") == 1:
        return source.partition(":")[0] or None
    return source


def _shown(value: Any) -> str:
    """A value inside a sentence."""
    if type(value) is str:
        return value if len(value) <= _SUMMARY_TEXT else value[:_SUMMARY_TEXT] + "…"
    if type(value) is bool or type(value) is float or (type(value) is int and value.bit_length() < 64):
        return str(value)
    return "unknown"


def timestamp_of(time: Any, envelope_time: Any, received: int, wrapped: bool, repairs: list[str]) -> int:
    """The event's own time, else that of its CloudEvent, else that of receipt.

    A time that is none rejects a flat record; in a CloudEvent, which has another, it is counted.
    """
    try:
        micros = None if time is None else moment(time, repairs=repairs)
        if micros is not None and type(time) is not str and not -EPOCH < micros < _LATEST * 1_000_000 - EPOCH:
            raise Unfit("bad_time", f"{shown(time)} is not the time of an event")
    except Unfit as error:
        if not wrapped:
            raise Unfit("bad_time", f"time: {error}") from None
        repairs.append("bad_time")
        micros = None
    if micros is None and envelope_time is not None:
        try:
            micros = moment(envelope_time, repairs=repairs)
        except Unfit:
            repairs.append("bad_time")
    return received if micros is None else micros


def level_of(level: Any, repairs: list[str]) -> int | None:
    """A level from its name or number; None for anything else, which raw_data has."""
    if type(level) is str and (known := LEVEL_OF.get(level.strip().lower())) is not None:
        return known
    return clamped("level", INT4_MIN, INT4_MAX, level, {}, repairs)
