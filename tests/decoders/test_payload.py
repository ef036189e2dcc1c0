"""From bytes to JSON: compression, its limits, and what is neither."""

from __future__ import annotations

import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression import gz
from eventwriter.values import Unfit
from workers._json.payload import read_json, unpack
from workers._limits import INFLATED_MAX

TEXT = b'{"value": 1}'


def refusal(payload: bytes) -> str:
    """Why a payload is refused."""
    with pytest.raises(Unfit) as caught:
        read_json(payload, [])
    return caught.value.reason


@pytest.mark.parametrize(
    "payload",
    [
        TEXT,
        b"\xef\xbb\xbf" + TEXT,
        gz(TEXT),
        gz(TEXT[:5]) + gz(TEXT[5:]),
        *(zlib.compress(TEXT, level) for level in (0, 1, 5, 9)),
    ],
)
def test_json_is_read_plain_or_compressed(payload: bytes) -> None:
    """Plain, with a byte order mark, gzip of one or several members, zlib of any level."""
    text, value = read_json(payload, [])
    assert value == {"value": 1}
    assert text.removeprefix(b"\xef\xbb\xbf") == TEXT


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        b"\x1e\x0f12345678\x00\x02{",
        b"\n\x05hello",
        b"{",
        b"[1,]",
        b"{}{}",
        b"NaN",
        b'{"a": NaN}',
        gz(TEXT)[:-1],
        gz(TEXT) + b"x",
        gz(b"no JSON"),
        gz(gz(TEXT)),
        b"x\x9cno zlib",
        zlib.compress(TEXT)[:-3],
        b"\x1f\x8b",
        gz(b"") * 1000,
    ],
)
def test_anything_else_is_malformed(payload: bytes) -> None:
    """Nothing, text, protobuf, a chunk of GELF, broken JSON, broken compression, compression twice."""
    assert refusal(payload) == "malformed"


def test_a_bomb_is_refused_before_it_is_inflated() -> None:
    """64 MiB in 64 KiB are given up at the limit: memory stays near it."""
    bomb = gz(bytes(64 * 2**20))
    tracemalloc.start()
    try:
        assert refusal(bomb) == "too_large"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * INFLATED_MAX
    assert refusal(zlib.compress(bytes(INFLATED_MAX + 1))) == "too_large"
    assert refusal(gz(bytes(INFLATED_MAX)) + gz(b"x")) == "too_large"


def test_what_only_looks_like_zlib_stays_as_it_is() -> None:
    """A protobuf message may begin with the same two bytes."""
    assert unpack(b"x\x9c\x01\x02") == b"x\x9c\x01\x02"


@given(st.binary() | st.binary().map(lambda rest: b"\x1f\x8b" + rest) | st.binary().map(lambda rest: b"x\x9c" + rest))
def test_any_bytes_are_read_or_refused(payload: bytes) -> None:
    """Nothing but Unfit is raised."""
    with suppress(Unfit):
        read_json(payload, [])
