r"""The contract between the engine and a stream: what a worker module receives, declares and returns.

What a row holds, by the type of its column (every column may also hold None, SQL NULL):

text              str, without U+0000 and lone surrogates
integer, bigint   int within the type's range
double precision  float (an int is not one)
boolean           bool
timestamptz       int: microseconds since 2000-01-01T00:00:00Z, PostgreSQL's own epoch (eventwriter.values)
jsonb             bytes: JSON text in UTF-8, without the escape \u0000
uuid              uuid.UUID
inet              str: an address of IPv4 or IPv6, with or without the length of a prefix
text[]            list of str, each as a text, or None

A value that is not like this is refused: its record is a dead letter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

PgType = Literal[
    "text", "integer", "bigint", "double precision", "boolean", "timestamptz", "jsonb", "uuid", "inet", "text[]"
]

Row = tuple[Any, ...]

HEADERS_MAX = 4000
"""Lines of headers of a message that anybody looks at."""


class Headers(dict[str, str]):
    """Headers with a name that occurs more than once: of each name the last value, and in ``pairs`` all of them."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


class LateHeaders(Mapping[str, str]):
    """Headers that would take many times their bytes in memory: read whenever they are asked for, and not kept."""

    __slots__ = ("block", "read")

    def __init__(self, block: bytes, read: Callable[[bytes], Mapping[str, str]]) -> None:
        self.block = block
        self.read = read

    @property
    def too_many(self) -> bool:
        """Whether there are more than HEADERS_MAX; nothing is read for that."""
        return self.block.count(b"\n") > HEADERS_MAX

    def __getitem__(self, name: str) -> str:
        return self.read(self.block)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.read(self.block))

    def __len__(self) -> int:
        return len(self.read(self.block))


class Message(NamedTuple):
    """One JetStream message, as a decoder sees it."""

    subject: str
    payload: bytes
    sequence: int
    """Sequence in the stream; with the stream's creation time it identifies the message for ever."""
    time: int
    """JetStream message timestamp, nanoseconds since 1970: the fallback for a record without a time."""
    headers: Mapping[str, str] | None = None
    """Of a name that occurs more than once the last value."""


class Reject(NamedTuple):
    """A record that cannot become a row: a dead letter."""

    reason: str
    """Bounded word for counting, such as ``malformed``, ``bad_value``, ``missing_field``, ``conflict``."""
    detail: str
    """One sentence for a person: field, value, what was expected. At most 500 characters."""
    record_index: int | None = None
    """Ordinal of the record in its message, from 0 over all its records; None: the whole message."""
    sqlstate: str | None = None
    """SQLSTATE when it was PostgreSQL that refused the row."""


class Decoded(NamedTuple):
    """What one message holds.

    Every record of the message is either the next element of ``rows`` or a Reject with its ``record_index``,
    in the order of the message; so rows[k] is the k-th record that was not rejected. A message that cannot be decoded
    at all is one Reject without index and no rows. A message may legally hold no records at all.
    """

    rows: Sequence[Row] = ()
    rejects: Sequence[Reject] = ()
    repairs: Sequence[str] = ()
    """One bounded word per repaired value: ``nul_replaced``, ``clamped``, ``bad_time``, ``bad_value`` …"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a stream's rows fill."""

    name: str
    type: PgType
    aliases: tuple[str, ...] = ()
    """Names the same column has in tables that somebody else created (``gateway_id``: ``poller_id``)."""
    core: bool = True
    """Whether the stream stops where the table has it under none of its names: what is not stored is lost. False is for
    what tables of others never had: rows are written without it, and that is shown wherever the stream is."""
    instead: tuple[str, float] | None = None
    """Where a table has no column of this other name, its value divided by this stands for one that is missing."""
    wanted: bool = True
    """False where the settings leave it out: not written though the table has it, nor missed if it has not."""
    of: Callable[[Row], Any] | None = None
    """For one of ``Stream.computed``: its value, made of the other values of a row."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One logical stream: where it comes from, where it goes, and how a message becomes rows."""

    name: str
    """Upper case, as in the configuration: ``LOGS``. Its module is ``workers/logs.py``."""
    subjects: tuple[str, ...]
    """Default filter subjects of the consumer."""
    table: str
    """Default target table; its definition is ``schemas/<table>.sql``."""
    columns: tuple[Column, ...]
    """The columns of a row, in the order of its values."""
    decode: Callable[[Message], Decoded]
    """Pure and total: no clock, no random, no I/O, and it never raises on any bytes."""
    fast: Callable[[Sequence[Message]], Sequence[Row | None]] | None = None
    """The fast path: common messages, many at a time: of each its only row, if ``decode`` would give the same and
    neither reject nor repair; None if that takes ``decode``. If it raises, all of them take ``decode``."""
    key: tuple[str, ...] = ()
    """Columns of the unique key under which the latest message replaces earlier ones; empty: rows only append."""
    former_key: tuple[str, ...] = ()
    """Those of the same in tables that were made before: what differs in the other columns of the key does not replace
    there, but is a conflict."""
    computed: tuple[Column, ...] = ()
    """Columns that tables of others have: rows are without them, and where a table has one its value is computed."""
    sql: str | None = None
    """The definition of the table where that is not ``schemas/<table>.sql``; empty: there is none, somebody else has
    made the table."""
    fit: Callable[[Mapping[str, tuple[str, bool]]], tuple[Column, ...]] | None = None
    """For a stream without code, which takes the types of its columns from the table: tells ``decode`` what the table
    has, each column's type and whether it is NOT NULL, and gives the columns of rows from then on. Raises Unfit."""
    code: str = ""
    """What tells its code from what it was before, where that may change while the service runs."""

    def owns(self, table: str) -> bool:
        """Whether this table is the stream's own, which ``schema apply`` creates and extends."""
        return table == self.table and self.sql != ""

    def leaving_out(self, names: Sequence[str]) -> Stream:
        """The same without these columns in its table; its rows still have values for them."""

        def wanted(columns: tuple[Column, ...]) -> tuple[Column, ...]:
            return tuple(replace(column, wanted=column.name not in names) for column in columns)

        return replace(self, columns=wanted(self.columns), computed=wanted(self.computed))


class Batch(NamedTuple):
    """Messages taken together, to be written in one transaction and acknowledged after it."""

    messages: Sequence[Message]
    firsts: Sequence[int] | None
    """For each message the first sequence it accounts for: its own, or that after the previous message of ours
    when the consumer has shown that nothing of ours lies between. None: each that after the message before it, as
    ``span`` tells; see ``each_first``."""
    reply_subjects: Sequence[bytes] = ()
    """What the source needs to acknowledge them: reply subjects, many a piece, a line each."""
    size: int = 0
    """Bytes of payload."""
    redelivered: int = 0
    """How many of the messages had been delivered before."""
    span: tuple[int, int] | None = None
    """The first and last sequence that it accounts for, with all between, if no message comes twice; None: unknown."""
    reread: bool = False
    """Whether it was missing, and was read again: nobody waits for its acknowledgement."""

    def each_first(self) -> Sequence[int]:
        """``firsts``, also where the span tells them."""
        if self.firsts is not None:
            return self.firsts
        assert self.span is not None, "one of the two is known"
        return [self.span[0], *(message.sequence + 1 for message in self.messages[:-1])]

    @property
    def newest(self) -> Message:
        """The message with the highest sequence."""
        return self.messages[-1] if self.span is not None else max(self.messages, key=lambda each: each.sequence)

    @property
    def repeats(self) -> bool:
        """Whether a message is in it twice."""
        return self.span is None and len({message.sequence for message in self.messages}) < len(self.messages)

    def each_once(self) -> Batch:
        """Without what was delivered again while its first delivery still waited: the ledger sees neither."""
        places: dict[int, int] = {}
        for place, message in enumerate(self.messages):
            places.setdefault(message.sequence, place)
        kept, firsts = places.values(), self.each_first()
        return Batch([self.messages[place] for place in kept], [firsts[place] for place in kept])

    def part(self, place: int, most: int) -> Batch:
        """What is to be written of it from this message on, ``most`` messages at most; itself if that is all."""
        if place == 0 and most >= len(self.messages):
            return self
        messages, firsts = self.messages[place : place + most], self.each_first()[place : place + most]
        span = None if self.span is None else (firsts[0], messages[-1].sequence)
        return Batch(messages, firsts, size=sum(len(m.payload) for m in messages), span=span, reread=self.reread)


@dataclass(slots=True)
class Outcome:
    """What became of a batch. Messages taken = written + deadlettered + already_done + excluded."""

    written: int = 0
    """Messages with at least one row in the table, or legally without records."""
    deadlettered: int = 0
    """Messages without any row: every record, or the whole, is a dead letter."""
    already_done: int = 0
    """Redelivered messages that the ledger knew: acknowledged, not written."""
    excluded: int = 0
    """Messages of excluded subjects: acknowledged, not written."""
    set_aside: dict[int, float] = field(default_factory=dict)
    """Sequences that are given back without a fate: to be delivered again after so many seconds, or longer."""
    rows: int = 0
    """Rows written: that the table has now and had not before, or had otherwise."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Rows sent and not written, by reason: ``identical``, ``superseded``, ``conflict``, ``dropped``."""
    empty: int = 0
    """Messages legally without records, which are among those written."""
    rejects: dict[str, int] = field(default_factory=dict)
    """Dead-lettered records by reason."""
    repairs: dict[str, int] = field(default_factory=dict)
    """Repaired values by reason."""
    latest: list[tuple[Message, Reject]] = field(default_factory=list)
    """Some of the dead letters, for people to look at."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time spent by stage: decode, copy, commit."""
    way: str = field(default="", compare=False)
    """How its rows went in: ``copy``, ``upsert``, ``staged`` (by way of a temporary table) or ``row by row``."""
