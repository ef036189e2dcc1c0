"""The text of OTLP requests: what is not UTF-8 is mended, for protobuf refuses all of a message for it; U+0000, which
PostgreSQL does not take, is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from eventwriter import values
from workers._limits import RECORDS_MAX, too_many


def mended(kind: type[Message], payload: bytes, repairs: list[str]) -> bytes:
    """A request whose only fault is text that is not UTF-8, with U+FFFD in its place: exporters exist that cut a text
    inside a character. Raises DecodeError if there is another fault, TooLarge for too many."""

    def mend(octets: bytes) -> bytes:
        text = octets.decode("utf-8", "replace").encode()
        if text == octets:
            return octets
        repairs.append("invalid_utf8")
        if len(repairs) > RECORDS_MAX:
            raise too_many("texts that are not UTF-8")
        return text

    request = _with_bytes(kind.DESCRIPTOR).FromString(payload)
    _replace(request, kind.DESCRIPTOR, mend)
    return request.SerializeToString()


@cache
def _with_bytes(request: Any) -> type[Message]:
    """The type of such a request with bytes for text, which protobuf does not look into."""
    pool = DescriptorPool()

    def add(file: Any) -> None:
        for other in file.dependencies:
            add(other)
        proto = FileDescriptorProto()
        file.CopyToProto(proto)
        change(proto.message_type)
        pool.Add(proto)

    def change(messages: Iterable[DescriptorProto]) -> None:
        for message in messages:
            for field in message.field:
                if field.type == field.TYPE_STRING:
                    field.type = field.TYPE_BYTES
            change(message.nested_type)

    add(request.file)
    return GetMessageClass(pool.FindMessageTypeByName(request.full_name))


def clean_text(request: Message, repairs: list[str]) -> None:
    """Replaces U+0000 in every text of a request."""
    _replace(request, request.DESCRIPTOR, lambda text: values.clean(text, repairs))


def _replace(message: Message, kind: Any, replaced: Callable[[Any], Any]) -> None:
    """Replaces every text of a message; ``kind`` says which fields those are."""
    for field, value in message.ListFields():
        known = kind.fields_by_number[field.number]
        if known.message_type is not None:
            for inner in value if known.is_repeated else (value,):
                _replace(inner, known.message_type, replaced)
        elif known.type == known.TYPE_STRING and known.is_repeated:
            value[:] = [replaced(text) for text in value]
        elif known.type == known.TYPE_STRING:
            setattr(message, field.name, replaced(value))
