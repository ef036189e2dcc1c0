"""What the processes of a service write on the board, each kind as it is read again: as typed structs.

Times are seconds since 1970, but for ``asked``, ``beat``, ``began``, ``since``, ``told`` and ``waiting_since``, of the
monotonic clock that all processes of a machine share: from them durations are told, which a clock that is set must not
change.
"""

from __future__ import annotations

from msgspec import Struct, field

from eventwriter.observability.board import AGE_BUCKETS, BATCH_BUCKETS, STAGES


def slow(seconds: float) -> str:
    """The reason of a stream that waits for an answer of PostgreSQL, and what to do."""
    remedy = (
        "look for what it waits for in pg_stat_activity, for slow storage, and whether the network passes all packets"
    )
    return f"PostgreSQL has been at work on a batch for {seconds:.0f} s: {remedy}"


class Counters(Struct):
    """What a stream's processes have counted since the service began; FATES are the fates of a message."""

    taken: int = 0
    written: int = 0
    deadlettered: int = 0
    already_done: int = 0
    excluded: int = 0
    released: int = 0
    rows: int = 0
    bytes: int = 0
    redelivered: int = 0
    reread: int = 0
    empty: int = 0

    @property
    def in_hand(self) -> int:
        """Messages that were taken and have no fate yet."""
        done = self.written + self.deadlettered + self.already_done + self.excluded + self.released
        return self.taken - done


class DeadLetter(Struct):
    """One of the latest dead letters, for people."""

    time: float
    reason: str
    detail: str
    subject: str
    sequence: int
    view: str = ""
    """What people see of it, as ``dlq show`` has it; not among what is written with every batch."""


class Exemplar(Struct, array_like=True):
    """A batch that fell into a bucket of a histogram."""

    seconds: float
    sequence: int
    """Of its last message, in the stream."""
    time: float
    """When that was counted."""


class Kept(Struct):
    """What the next process of the name goes on with."""

    counters: Counters = field(default_factory=Counters)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    durations: dict[str, list[int]] = field(
        default_factory=lambda: {stage: [0] * (len(BATCH_BUCKETS) + 1) for stage in STAGES}
    )
    """Of each stage: how many batches took so long, by BATCH_BUCKETS."""
    skipped: dict[str, int] = field(default_factory=dict)
    rejects: dict[str, int] = field(default_factory=dict)
    repairs: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    ages: list[int] = field(default_factory=lambda: [0] * (len(AGE_BUCKETS) + 1))
    """How many messages were so old at their commit, by AGE_BUCKETS."""
    age_sum: float = 0.0
    exemplars: dict[str, list[Exemplar | None]] = field(default_factory=dict)
    """The latest batch in each bucket of ``durations``, by stage, and of ``ages``."""
    dead_letters: list[DeadLetter] = field(default_factory=list)
    """The latest, newest first."""
    last_commit: float | None = None
    error: str = ""
    """What ended the last process, or what is wrong now, until it is known to be over."""
    told: float = 0.0
    """When the log was told what ended it."""
    passing: bool = False
    """Whether what ends it may be over though the settings stay: a table, or anything once one was ready."""


class WorkerState(Kept, tag="worker", tag_field="kind", kw_only=True):
    """One worker process."""

    name: str
    stream: str
    pid: int
    started: float
    beat: float = 0.0
    asked: float = 0.0
    """When it was last seen waiting for an answer of PostgreSQL, which is no sign of life of its own."""
    batch_messages: int = 0
    ready: bool = False
    draining: bool = False
    nats: bool = False
    nats_error: str = ""
    trouble: str = ""
    """Why nothing is delivered though NATS is there."""
    postgres: bool = False
    omitted: list[str] = field(default_factory=list)
    """Columns that the table lacks."""
    pending: int | None = None
    """Messages that wait in the consumer; None: unknown."""
    ack_pending: int | None = None
    newest: float | None = None
    """When JetStream received the newest message that is written."""
    batches: list[float] = field(default_factory=list)
    """The same of each batch that is taken and not written, in order; 0 of one that is read again."""
    waiting_since: float | None = None
    """Since when messages wait without any commit."""
    way: str = ""
    """How the latest batch was written."""
    ledger: list[int] = field(default_factory=list)
    """The highest sequence that is done, and in how many ranges; empty: unknown."""
    missing: int = 0
    """Sequences that are not in the ledger and gone from the stream, and that nobody took note of."""


class ChildState(Struct):
    """What the supervisor knows of one child."""

    state: str = ""
    pid: int = 0
    since: float | None = None
    why: str = ""
    status: int | None = None
    restarts: int = 0


class SupervisorState(Struct, tag="supervisor", tag_field="kind", kw_only=True):
    """The supervisor, and its children by name."""

    name: str
    started: float
    beat: float
    since: float | None = None
    """When it was started; uptime is told from this one."""
    config_error: str = ""
    """What is wrong with the settings that were read last: those before are in force."""
    stopping: bool = False
    """Whether the service was told to end."""
    children: dict[str, ChildState] = field(default_factory=dict)


class HistoryState(Struct, tag="history", tag_field="kind", kw_only=True):
    """A stream's last minutes, as (rows a second, lag in seconds, dead letters a second)."""

    name: str
    points: list[tuple[float | None, float | None, float | None]]
    last: tuple[float, int, int] | None
    """When the latest point was made, and how many rows and dead letters were written then."""


class MonitorState(Struct, tag="monitor", tag_field="kind", kw_only=True):
    """The monitor is alive."""

    name: str
    beat: float
    began: dict[str, float] = field(default_factory=dict)
    """Of each stream in trouble: since when."""


class Beat(Struct):
    """What all of them have in common: who it is, and its last sign of life, if it gives any."""

    name: str
    beat: float = 0.0


State = WorkerState | SupervisorState | HistoryState | MonitorState
