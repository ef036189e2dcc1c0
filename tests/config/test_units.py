"""Durations and sizes: what people write is read exactly, and what we write is read as the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventwriter.config.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20ms", 0.02), ("1.5s", 1.5), ("2m", 120.0), ("1h", 3600.0), ("500us", 0.0005), ("500µs", 0.0005),
        ("500μs", 0.0005), ("100ns", 1e-7), ("1m30s", 90.0), ("1h0m0.5s", 3600.5), ("3", 3.0), ("0.25", 0.25),
        ("0", 0.0), ("0s", 0.0), (" 5s ", 5.0), (".5s", 0.5), ("1.s", 1.0), ("30d", 2_592_000.0), ("1d12h", 129_600.0),
    ],
)  # fmt: skip
def test_durations_are_read(text: str, seconds: float) -> None:
    """Units, Go's compound form and bare seconds are exact."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "20 ms", "20xs", "-1s", "1w", "1s2", "nan", "inf", "1e3", "s1", "٣s", "1..s"]
)
def test_what_is_no_duration(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8MiB", 8 * 2**20), ("8MB", 8_000_000), ("512KiB", 2**19), ("1GiB", 2**30), ("1TiB", 2**40), ("4096", 4096),
        ("1kB", 1000), ("1KB", 1000), ("7B", 7), ("1.5MiB", 3 * 2**19), ("8 mib", 8 * 2**20),
    ],
)  # fmt: skip
def test_sizes_are_read(text: str, size: int) -> None:
    """Powers of 1024 and 1000, in any case, and bare bytes."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "8M", "8 MiB x", "-1", "0.5B", "MiB", "8MiBs", "1e6"])
def test_what_is_no_size(text: str) -> None:
    """Ambiguous units, parts of bytes and anything else are refused."""
    with pytest.raises(ValueError, match="not a"):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.01, "10ms"),
        (1.5, "1.5s"),
        (60, "60s"),
        (120, "2m"),
        (120.0, "2m"),
        (7200.0, "2h"),
        (0.0005, "500us"),
        (0, "0s"),
    ],
)
def test_durations_are_written_with_the_unit_that_suits(seconds: float, text: str) -> None:
    """People see the unit they would have chosen."""
    assert format_duration(seconds) == text


@given(st.floats(0, 1e6, allow_subnormal=False).filter(lambda x: x == 0 or x > 1e-7))
def test_durations_come_back(seconds: float) -> None:
    """Writing and reading gives the same number, to the last bit."""
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 2**50))
def test_sizes_come_back(size: int) -> None:
    """Writing and reading gives the same number of bytes."""
    assert parse_size(format_size(size)) == size
