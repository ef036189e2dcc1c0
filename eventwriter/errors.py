"""The errors of eventwriter, each with the exit code (sysexits.h) it ends a process with."""

from __future__ import annotations

from collections.abc import Sequence

from eventwriter import masking

OK = 0
MISSING = 1
USAGE = 64
BAD_DATA = 65
UNAVAILABLE = 69
INTERNAL = 70
DRAIN_DEADLINE = 75
AUTHENTICATION = 77
CONFIGURATION = 78


class EventWriterError(Exception):
    """Base of every error that is told in one line: the message names the cause and the remedy, and no secret."""

    exit_code = INTERNAL

    def __init__(self, message: str) -> None:
        super().__init__(masking.text(message))


class UsageError(EventWriterError):
    """The command line asks for something that does not exist."""

    exit_code = USAGE


class UnavailableError(EventWriterError):
    """NATS, a stream or PostgreSQL cannot be reached now; trying again later may succeed."""

    exit_code = UNAVAILABLE


class OversizedError(UnavailableError):
    """A batch is too much for one transaction of PostgreSQL; a part of it may not be."""

    def __init__(self, message: str, limit: str = "") -> None:
        super().__init__(message)
        self.limit = limit
        """PostgreSQL's name of the setting that it ran into."""


class RestoringError(UnavailableError):
    """TimescaleDB restores the database: whoever writes waits until that is over."""

    def __init__(self, message: str, *, here: bool) -> None:
        super().__init__(message)
        self.here = here
        """Whether it is so in this session alone: it may be over, and a new one is without it."""


class RaisedError(UnavailableError):
    """A trigger raises with its own hand what would pass if PostgreSQL said it: it may mean the row."""


class ReadOnlyError(UnavailableError):
    """PostgreSQL takes no writes from this session: a standby, or one that has become it. Another session may."""


class ExclusiveError(EventWriterError):
    """Another worker serves a consumer that must be served by one alone; it may have to end first."""

    exit_code = UNAVAILABLE


class ConsumerEditedError(UnavailableError):
    """Somebody edited our consumer; binding it anew puts that right."""


class LedgerChangedError(EventWriterError):
    """The ledger's row is gone, or means something else than before: it must be opened again before all else."""

    exit_code = UNAVAILABLE


class AuthenticationError(EventWriterError):
    """NATS or PostgreSQL refuses our credentials; trying again with the same ones will not succeed."""

    exit_code = AUTHENTICATION


class RefusedError(UnavailableError):
    """PostgreSQL refuses credentials that it took before: who runs waits until it does again, or has others."""


class ForbiddenError(AuthenticationError, UnavailableError):
    """NATS does not permit us a subject: nothing starts without it, but a worker that runs waits until it may again."""


class ConfigurationError(EventWriterError):
    """A setting, or a consumer that exists with another configuration, is wrong."""

    exit_code = CONFIGURATION


class SchemaError(EventWriterError):
    """A table is missing or lacks what the stream needs; the message names table, column and remedy."""

    exit_code = CONFIGURATION


class TableError(SchemaError):
    """The catalog tells that a table does not fit: found before any message is taken, so looking again does no harm."""


class DrainDeadlineError(EventWriterError):
    """Draining did not finish before its deadline; what was in hand will be delivered again."""

    exit_code = DRAIN_DEADLINE


def kind(error: type[EventWriterError]) -> str:
    """What metrics call such an error: by its cause, whoever meets it."""
    causes = {RefusedError: AuthenticationError, TableError: SchemaError}
    return causes.get(error, error).__name__.removesuffix("Error").lower()


def kinds(base: type[EventWriterError] = EventWriterError) -> set[str]:
    """All that there are."""
    return {kind(base)}.union(*map(kinds, base.__subclasses__())) - {"eventwriter", "usage"}


def listed(names: Sequence[str], most: int = 8) -> str:
    """The names for one line: the first of them, and how many more there are."""
    more = len(names) - most
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:most])} and {more} more"


def remedy_for_omitted(stream: str) -> str:
    """What ends it that columns of a stream are left out, or that this is told."""
    return f"`eventwriter schema apply` adds what a table of ours lacks, streams.{stream}.omit names what is not wanted"
