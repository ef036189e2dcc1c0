"""What a command asks of a service that runs: whoever answers instead, and whatever that says."""

from __future__ import annotations

import pytest

from eventwriter.commands.running import Service, fetch
from eventwriter.errors import UnavailableError


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("http://127.0.0.1:9", "hunter2-very-s3cret\n"),
        ("http://127.0.0.1:9", "s3cret-p€ss"),
        ("http://u:s3cret@127.0.0.1", "t"),
        ("//u:s3cret@127.0.0.1", "t"),
        ("u:s3cret@127.0.0.1:9", "t"),
    ],
)
def test_what_cannot_be_asked_shows_no_secret(url: str, token: str) -> None:
    """What Python says of a header or a URL quotes it: that is not told."""
    with pytest.raises(UnavailableError) as caught:
        fetch(Service(url, token))
    assert "s3cret" not in str(caught.value)
    assert "expected a URL" in str(caught.value) or "no service answers" in str(caught.value)
