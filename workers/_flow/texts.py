"""How rows of flows, from protobuf and from JSON, write addresses, MAC addresses, names and numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address
from socket import AF_INET6, inet_ntop
from typing import Any

import orjson

from eventwriter.masking.community import masked
from eventwriter.values import Unfit, clean
from workers._json.secrets import packed

JS_SAFE = 2**53 - 1
"""The largest integer that every reader of JSON takes exactly; larger ones are written as strings."""
_ADDRESSES_MAX = 65536


class _Cache(dict[bytes, Any]):
    """What is made of addresses, once made: in half the time of lru_cache, which puts each into a tuple first."""

    def __init__(self, make: Callable[[bytes], Any]) -> None:
        self.make = make

    def __missing__(self, octets: bytes) -> Any:
        text = self.make(octets)
        if len(octets) <= 16:
            if len(self) == _ADDRESSES_MAX:
                self.clear()
            self[octets] = text
        return text


def _address(octets: bytes) -> str | None:
    if len(octets) == 4:
        return f"{octets[0]}.{octets[1]}.{octets[2]}.{octets[3]}"
    if len(octets) != 16:
        return None
    if octets.startswith(bytes(10)):  # where C libraries disagree about dotted quads inside IPv6
        mapped = IPv6Address(octets).ipv4_mapped
        return str(IPv6Address(octets)) if mapped is None else f"::ffff:{mapped}"
    return inet_ntop(AF_INET6, octets)


address: Callable[[bytes], str | None] = _Cache(_address).__getitem__
"""The text of an IP address of 4 or 16 bytes (RFC 5952); None for any other length."""
address_or_hex: Callable[[bytes], str] = _Cache(lambda octets: _address(octets) or octets.hex()).__getitem__
"""The same, and the digits of what is no address."""


@lru_cache(maxsize=65536)
def mac_text(mac: int) -> str | int:
    """00:11:22:33:44:55, the way goflow2's JSON writes a MAC address; beyond 48 bits it is but a number."""
    return mac.to_bytes(6, "big").hex(":") if mac < 1 << 48 else safe(mac)


def protocol_text(octets: bytes) -> str:
    """The name of a protocol, fit for PostgreSQL."""
    return clean(octets.decode("utf-8", "replace"), [])


def repairs_of(name: bytes) -> list[str]:
    """What had to be repaired in the name of a protocol."""
    text, repairs = name.decode("utf-8", "replace"), list[str]()
    if text.encode() != name:
        repairs.append("invalid_utf8")
    clean(text, repairs)
    return repairs


def safe(value: Any) -> Any:
    """A JSON value with the texts of integers that not every reader of JSON takes exactly."""
    if isinstance(value, dict):
        return {name: safe(each) for name, each in value.items()}
    if isinstance(value, list):
        return [safe(each) for each in value]
    return str(value) if isinstance(value, int) and abs(value) > JS_SAFE else value


def dump_safe(metadata: dict[str, Any]) -> bytes:
    """The JSON of metadata, with integers as ``safe`` has them."""
    try:
        return masked(orjson.dumps(metadata, option=orjson.OPT_STRICT_INTEGER))
    except TypeError:
        try:
            return packed(safe(metadata))
        except RecursionError:
            raise Unfit("bad_value", "JSON nested too deep to be written") from None
