"""From the bytes of a message on LOGS, OTEL_TRACES or OTEL_METRICS to its records, in whatever encoding they come.

JSON is told from protobuf by parsing it: a protobuf request may well begin like JSON. Objects, and those in arrays, are
OTLP/JSON requests, CloudEvents around anything else, summaries with the original request in base64, or flat records.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message

from eventwriter.stream import Reject, Row
from eventwriter.values import Unfit, shown
from workers._json.convert import from_base64
from workers._json.payload import parse, unpack
from workers._json.records import Kind, Origin, Records, check_depth
from workers._limits import is_large
from workers._otlp.json_form import build_request
from workers._otlp.reader import FALLBACK, Reader, fast_reader
from workers._otlp.request import check_request, inside, parse_request, unreadable
from workers._otlp.utf8 import clean_text

_SIGNALS = ("resourceLogs", "resource_logs", "resourceSpans", "resource_spans", "resourceMetrics", "resource_metrics",
            "resourceProfiles", "resource_profiles")  # fmt: skip
"""Keys of the requests of all signals, in both their spellings."""
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*[\[{]")


@dataclass(frozen=True, kw_only=True)
class Signal(Kind):
    """How one signal's messages become rows: ``row_of`` is for flat JSON records, all else for requests."""

    groups: tuple[str, ...] = ("raw_payload", *_SIGNALS)
    request: type[Message]
    lean: type[Message] | None
    """The same request for the fast path, which is for those in protobuf without envelope; None: there is none."""
    otlp_rows: Callable[[Reader, Any, Origin], list[Row]]
    """All records of a request, in order. On the fast path it may raise ValueError or DecodeError instead."""

    def read(self, records: Records, octets: bytes, origin: Origin, depth: int) -> None:
        if depth:
            check_depth(depth)
        if _JSON.match(octets):
            try:
                value = parse(octets, origin[4])
            except Unfit:
                if octets[:1] != b"\n":  # where a protobuf request begins
                    raise
            else:
                records.take(value, origin, depth)
                return
        elif octets and octets[:1] != b"\n" and (inflated := unpack(octets, records)) is not octets:
            self.read(records, inflated, origin, depth + 1)
            return
        if (depth or origin[0].headers) and (rows := self.rows_of(octets, origin)):  # else it was tried before
            records.rows += rows
            return
        check_request(octets, self.request.DESCRIPTOR)
        request = parse_request(self.request, octets, origin[4])
        self._take_request(records, request, origin, unreadable(request))

    read_data = read

    def rows_of(self, payload: bytes, origin: Origin) -> Sequence[Row]:
        _, _, _, envelope, repairs = origin
        if payload[:1] != b"\n" or envelope is not None or self.lean is None:
            return ()
        check_request(payload, self.request.DESCRIPTOR)
        before = len(repairs)
        try:
            rows = self.otlp_rows(fast_reader(payload), self.lean.FromString(payload), origin)
        except (ValueError, DecodeError):
            rows = []
        if not rows or "text_replaced" in repairs[before:]:
            del repairs[before:]
            return ()
        return rows

    def take_group(self, records: Records, value: Mapping[str, Any], origin: Origin, depth: int) -> bool:
        """An OTLP/JSON request, or a summary with the original request in base64."""
        own = self.request.DESCRIPTOR.fields[0]
        names = {own.json_name, own.name}
        given = {key for key, each in value.items() if each is not None}
        if names & (given or value.keys()):
            request, rejects = build_request(self.request, value, origin[4])
            self._take_request(records, request, origin, rejects)
        elif other := next((name for name in _SIGNALS if type(value.get(name)) is list), None):
            raise Unfit("malformed", f"{other}: OTLP of another signal than {own.json_name}")
        elif "raw_payload" in value and "resource_metric_count" in value:
            octets = from_base64(given := value["raw_payload"])
            if octets is None or (not octets and value["resource_metric_count"]):
                raise Unfit("malformed", f"raw_payload is {shown(given)}, not a request in base64")
            self.read(records, octets, origin, depth + 1)
        else:
            return False
        return True

    def _take_request(self, records: Records, request: Message, origin: Origin, rejects: Sequence[Reject] = ()) -> None:
        """The records of an OTLP request, and ``rejects`` that it had besides."""
        _, _, _, envelope, repairs = origin
        if envelope:  # before anything is made of them
            is_large(envelope, sum(len(inside(scoped)) for group in inside(request) for scoped in inside(group)))
        before = len(repairs)
        rows = self.otlp_rows(FALLBACK, request, origin)
        if "text_replaced" in repairs[before:]:
            # As in JSON, text is cleaned before anything is made of it: keys that become the same are one that is
            # repeated, and are in the order that they have then, which is part of what tells a series.
            del repairs[before:]
            clean_text(request, repairs)
            rows = self.otlp_rows(FALLBACK, request, origin)
        first = records.count
        records.rejects += [reject._replace(record_index=first + (reject.record_index or 0)) for reject in rejects]
        records.rows += rows
