"""Bodies of OTLP log records that are no plain text."""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from workers._otlp import values


def other_body(
    body: AnyValue, rest: dict[str, Any], data: bytes | None, repairs: list[str]
) -> tuple[str | None, bytes | None]:
    """Text of the body, and ``data`` with the body's own type: text does not tell 5 from "5"."""
    kind = body.WhichOneof("value")
    if kind is None:
        return None, data
    if kind == "string_value":
        return "", data
    value = values.any_value(body)
    packed = values.dump(value, repairs)
    return packed.decode(), values.dump({**rest, "body": value}, repairs)
