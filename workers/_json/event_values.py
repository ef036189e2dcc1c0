"""The time and the level of an event, in whatever form they are given."""

from __future__ import annotations

from typing import Any

from eventwriter.values import EPOCH, INT4_MAX, INT4_MIN, Unfit, shown
from workers._json.convert import clamped, moment
from workers._json.event_shapes import LEVEL_OF

_LATEST = 9_909_000_000
"""Seconds since 1970, in the year 2283: a number beyond is no time of an event."""


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
