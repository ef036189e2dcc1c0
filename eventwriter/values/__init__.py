"""Conversions from what producers send to what PostgreSQL takes: JSON, times, numbers, text.

All are pure. A value that cannot be converted raises Unfit, whose ``reason`` is a bounded word for counting.
Functions that may repair a value take ``repairs``, a list to which they append the reason of each repair.
"""

from eventwriter.values.jsontext import (
    MAX_DEPTH,
    REPLACEMENT,
    LongNumber,
    clean,
    dump_json,
    is_rounded,
    parse_json,
    real_from_text,
    scrub,
)
from eventwriter.values.paths import parse_path
from eventwriter.values.scalars import (
    INT4_MAX,
    INT4_MIN,
    INT8_MAX,
    INT8_MIN,
    boolean,
    inet,
    integer,
    is_single,
    real,
    single,
    text,
    whole,
)
from eventwriter.values.times import (
    EPOCH,
    MAX_TIME,
    MIN_TIME,
    nanoseconds,
    time,
    time_from_nanos,
    time_from_number,
    time_from_seconds,
    time_from_text,
    time_to_text,
    usual_time,
    usual_times,
)
from eventwriter.values.unfit import Unfit, shown

__all__ = [
    "EPOCH",
    "INT4_MAX",
    "INT4_MIN",
    "INT8_MAX",
    "INT8_MIN",
    "MAX_DEPTH",
    "MAX_TIME",
    "MIN_TIME",
    "REPLACEMENT",
    "LongNumber",
    "Unfit",
    "boolean",
    "clean",
    "dump_json",
    "inet",
    "integer",
    "is_rounded",
    "is_single",
    "nanoseconds",
    "parse_json",
    "parse_path",
    "real",
    "real_from_text",
    "scrub",
    "shown",
    "single",
    "text",
    "time",
    "time_from_nanos",
    "time_from_number",
    "time_from_seconds",
    "time_from_text",
    "time_to_text",
    "usual_time",
    "usual_times",
    "whole",
]
