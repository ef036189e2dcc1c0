"""The `decode` command: what would become of payloads, without NATS and without PostgreSQL."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Literal

from eventwriter import viewing
from eventwriter.errors import BAD_DATA, OK, UsageError
from eventwriter.stream import Message, Stream
from eventwriter.values import EPOCH, Unfit, time_from_text

Form = Literal["raw", "base64", "hex", "lines"]

EXAMPLES = """Examples, one per encoding:

\b
  eventwriter decode --stream LOGS --lines app.jsonl                # JSON lines
  eventwriter decode --stream TELEMETRY metric.json                 # a JSON object or array
  eventwriter decode --stream EVENTS event.json                     # a CloudEvent, structured or a batch
  eventwriter decode --stream EVENTS --header ce-specversion=1.0 --header ce-id=1 \\
      --header ce-source=/a --header ce-type=t data.json            # a CloudEvent in binary mode
  eventwriter decode --stream LOGS --subject logs.syslog gelf.json  # GELF
  eventwriter decode --stream OTEL_TRACES --base64 request.b64      # OTLP protobuf
  eventwriter decode --stream OTEL_METRICS request.json             # OTLP/JSON
  eventwriter decode --stream NETFLOW --hex flow.hex                # FlowMessage protobuf
  eventwriter decode --stream SWEEP summary.json.gz                 # gzip, of any of them
"""


def run(
    stream: Stream,
    files: Iterable[IO[bytes]],
    say: Callable[[bytes], object],
    *,
    form: Form = "raw",
    subject: str | None = None,
    headers: Sequence[str] = (),
    received: str | None = None,
) -> int:
    """Says what would become of the payloads in ``files``, a line of JSON for each record; the exit status.

    ``headers`` as ``header`` takes them; ``received`` is an RFC 3339 time, now by default. Raises UsageError.
    """
    try:
        micros = time_from_text(received) if received else int(time.time() * 1e6) - EPOCH
    except Unfit as error:
        raise UsageError(f"--time: {error}") from None
    nanos = (micros + EPOCH) * 1000
    parsed = dict(map(header, headers)) or None
    rejected = False
    found = (payload for file in files for payload in payloads(file.read(), form))
    for sequence, payload in enumerate(found, 1):
        message = Message(subject or default_subject(stream), payload, sequence, nanos, parsed)
        for record in viewing.records(stream, message):
            rejected = rejected or "reject" in record
            say(viewing.to_line(record))
    return BAD_DATA if rejected else OK


def payloads(data: bytes, form: Form) -> Iterator[bytes]:
    """The messages in a file: the whole of it, or one in each line that is not empty.

    ``raw``: the bytes as they are; ``base64``, ``hex``: white space ignored; ``lines``: one payload a line.
    """
    if form == "raw":
        yield data
    elif form == "lines":
        yield from (line for line in data.splitlines() if line.strip())
    else:
        text = b"".join(data.split())
        try:
            yield base64.b64decode(text, validate=True) if form == "base64" else binascii.unhexlify(text)
        except (binascii.Error, ValueError) as error:
            raise UsageError(f"the input is not {form}: {error}") from None


def header(text: str) -> tuple[str, str]:
    """``name=value`` or ``name: value`` as name and value."""
    for separator in ("=", ":"):
        name, found, value = text.partition(separator)
        if found and name.strip():
            return name.strip(), value.strip()
    raise UsageError(f"header {text!r} is not name=value")


def default_subject(stream: Stream) -> str:
    """A subject that the stream's first filter matches."""
    return stream.subjects[0].replace("*", "x").replace(">", "example")
