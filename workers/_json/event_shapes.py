"""What the data of an event says, by its shape: GELF, SNMP trap, state change, device lifecycle, OCSF, anything flat.

Values are returned as they come; of the time and the level the last two functions make those of the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventwriter.values import EPOCH, INT4_MAX, INT4_MIN, Unfit, integer, shown
from workers._json.convert import clamped, fitting, moment

FACTS = ("time", "remote_addr", "host", "level", "severity", "short_message", "version")

LEVELS = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
"""Names of syslog's levels 0 to 7 (RFC 5424)."""
_LEVEL_OF: Mapping[str, int] = {name: level for level, name in enumerate(LEVELS)} | (
    {"emerg": 0, "panic": 0, "crit": 2, "fatal": 2, "err": 3, "warn": 4, "informational": 6, "information": 6}
)
_STATES: Mapping[str, tuple[int, str]] = {"unhealthy": (3, "error"), "healthy": (6, "info"), "unknown": (5, "notice")}
_OCSF: Mapping[int | None, tuple[int | None, str]] = {
    6: (2, "Fatal"), 5: (2, "Critical"), 4: (3, "High"), 3: (4, "Medium"), 2: (5, "Low"), 1: (6, "Informational"),
    0: (None, "Unknown"), 99: (None, "Other"),
}  # fmt: skip
"""OCSF severity_id → syslog level, and its name."""
_OTLP: Mapping[str, str] = {
    **dict.fromkeys(("resourceLogs", "resource_logs"), "LOGS"),
    **dict.fromkeys(("resourceSpans", "resource_spans"), "OTEL_TRACES"),
    **dict.fromkeys(("resourceMetrics", "resource_metrics"), "OTEL_METRICS"),
}
_WRAPPED_REMOTE = ("_remote_addr", "remote_addr", "remoteAddr")
_BARE_REMOTE = ("remote_addr", "remoteAddr", "_remote_addr")
_SUMMARY_BINDINGS = 16
_SUMMARY_TEXT = 200
"""How much of a trap its summary tells: all of it is in raw_data."""
_LATEST = 9_909_000_000
"""Seconds since 1970, in the year 2283: a number beyond is no time of an event."""


def facts_of(data: Mapping[str, Any], *, wrapped: bool) -> tuple[Any, ...]:
    """The FACTS of an event's data; ``wrapped``: it came in a CloudEvent. Raises Unfit for an OTLP request."""
    get = data.get
    time, host, level, severity, version = get("timestamp"), get("host"), get("level"), get("severity"), get("version")
    if time is None or (not wrapped and get("time") is not None):
        time = get("time")
    remote = _first(data, _WRAPPED_REMOTE if wrapped else _BARE_REMOTE)
    message = get("short_message")
    if message is not None and version is not None:  # GELF 1.1, by far the most frequent
        pass
    elif type(varbinds := get("varbinds")) is list:
        message = _first(data, ("short_message", "message", "msg", "body"))
        if type(message) is not str or not message:
            message = _trap_summary(varbinds)
        if (origin := _address(get("source"))) is not None:
            host = remote = origin
    elif get("current_state") is not None and (get("poller_id") is not None or get("gateway_id") is not None):
        message, (level, severity), name = _state_change(data)
        host = name if host is None else host
        remote, version = _first(data, ("remote_addr", "source_ip")), "1.1"
    elif get("device_id") is not None and get("action") is not None:
        message, host, version = _lifecycle(data), get("device_id"), "1.1"
        level = 5 if level is None else level
        severity = "Medium" if severity is None else severity
    elif get("class_uid") is not None:  # Open Cybersecurity Schema Framework
        message, time = _first(data, ("message", "short_message")), _first(data, ("time", "timestamp"))
        host = _of_ocsf(data, "device", ("hostname", "name"), ("host", "gateway_id", "poller_id", "device_id"), host)
        remote = _of_ocsf(data, "src_endpoint", ("ip",), ("remote_addr", "source_ip"), remote)
        if type(number := get("severity_id")) is not bool:
            number = fitting(integer, "severity_id", number, {}, [])
            level, named = _OCSF.get(number, (level, None))
            severity = named if severity is None else severity
    else:
        message = _message(data)
    return time, remote, host, level, severity, message, version


def _message(data: Mapping[str, Any]) -> Any:
    """What an event of no known shape says."""
    for name, stream in _OTLP.items():
        if type(data.get(name)) is list:
            raise Unfit("wrong_stream", f"an OTLP request ({name}), which belongs to stream {stream}")
    message = _first(data, ("short_message", "message", "msg"))
    if message is None:
        inner = data.get("data")
        message = _first(inner, ("message", "msg", "short_message")) if type(inner) is dict else inner
        message = message if type(message) is str else None
    return message


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


def _state_change(data: Mapping[str, Any]) -> tuple[str, tuple[int, str], Any]:
    """What it says, its level and severity, and who has changed."""
    kind, name = ("Gateway", data.get("gateway_id")) if data.get("poller_id") is None else ("Poller", data["poller_id"])
    before, now = data.get("previous_state"), data.get("current_state")
    message = f"{kind} {_shown(name)} state changed from {_shown(before)} to {_shown(now)}"
    return message, _STATES.get(now.strip().lower() if type(now) is str else "", (6, "info")), name


def _lifecycle(data: Mapping[str, Any]) -> str:
    device, action = _shown(data.get("device_id")), _shown(data.get("action")).lower()
    if action == "alias_updated":
        return f"Device {device} alias updated{_alias_changes(data.get('metadata'))}"
    actor = data.get("actor")
    return f"Device {device} {action}" + ("" if actor is None or actor == "" else f" by {_shown(actor)}")


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


def _of_ocsf(data: Mapping[str, Any], name: str, names: tuple[str, ...], unmapped: tuple[str, ...], flat: Any) -> Any:
    """A value within one of its objects, else within ``unmapped``, else the ``flat`` one."""
    for inner, keys in ((data.get(name), names), (data.get("unmapped"), unmapped)):
        if type(inner) is dict and (value := _first(inner, keys)) is not None:
            return value
    return flat


def _first(data: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The value of the first name that is there, and not null."""
    for name in names:
        value = data.get(name)
        if value is not None:
            return value
    return None


def _address(source: Any) -> str | None:
    """The address of ``ip:port``, ``[ipv6]:port``, or of an address alone; None if there is none."""
    if type(source) is not str:
        return None
    if source[:1] == "[":
        return source[1:].partition("]")[0] or None
    return (source.partition(":")[0] if source.count(":") == 1 else source) or None


def _shown(value: Any) -> str:
    """A value inside a sentence."""
    if type(value) is str:
        return value if len(value) <= _SUMMARY_TEXT else value[:_SUMMARY_TEXT] + "…"
    if type(value) is bool or type(value) is float or (type(value) is int and value.bit_length() < 64):
        return str(value)
    return "unknown"


def timestamp_of(time: Any, envelope_time: Any, received: int, wrapped: bool, repairs: list[str]) -> int:
    """The event's own time, else that of its CloudEvent, else that of receipt. A time that is none rejects a flat
    record; in a CloudEvent, which has another, it is counted."""
    for given in (time, envelope_time):
        try:
            micros = None if given is None else moment(given, repairs=repairs)
            if micros is not None and type(given) is not str and not -EPOCH < micros < _LATEST * 1_000_000 - EPOCH:
                raise Unfit("bad_time", f"{shown(given)} is not the time of an event")
        except Unfit as error:
            if not wrapped:
                raise Unfit("bad_time", f"time: {error}") from None
            repairs.append("bad_time")
            micros = None
        if micros is not None:
            return micros
    return received


def level_of(level: Any, repairs: list[str]) -> int | None:
    """A level from its name or number; None for anything else, which raw_data has."""
    if type(level) is int and INT4_MIN <= level <= INT4_MAX:
        return level
    if type(level) is str and (known := _LEVEL_OF.get(level.strip().lower())) is not None:
        return known
    return clamped("level", INT4_MIN, INT4_MAX, level, {}, repairs)
