"""What the errors of PostgreSQL and its driver mean for a batch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection, pq

from eventwriter.config import dsn
from eventwriter.errors import (
    AuthenticationError,
    ConfigurationError,
    EventWriterError,
    OversizedError,
    RaisedError,
    SchemaError,
    UnavailableError,
    UsageError,
)
from eventwriter.postgres import greeting, mistakes, tls
from eventwriter.stream import Reject

# The word is "line", or that of another language; where the number is not found, each row is tried.
_COPY_LINE = re.compile(r"^COPY .*?, [^\W\d_]+ (\d+)", re.MULTILINE)

# About the rows: data, constraints, views' checks, limits (an index entry too long), raised by triggers.
DATA = ("22", "23", "44", "54", "P0")
# Perhaps about a row, though mostly about the server or the table: internal errors and what is not supported or not
# ready (a chunk that is frozen or tiered; a deferrable key, for ON CONFLICT), and two rows of what is one key there.
DOUBTFUL = ("XX000", "0A000", "55000", "21000")
FORBIDDEN = "42501"
KEY_TAKEN = ("23505", "23P01")
"""SQLSTATE of a row that a unique key or an exclusion constraint keeps out."""
# What passes: connection, deadlock, resources, operator, system, locks, read-only, lost prepared statements.
_TRANSIENT = ("08", "40", "53", "57", "58", "55", "25", "26", "XX", "F0")
# Schema, permissions, what is not supported.
_TABLES = ("0A", "28", "2B", "3D", "3F", "42")
NOT_DATA = (*_TRANSIENT, *_TABLES)
"""What is about no row, if it is not doubtful."""
_CANCELLED = "canceling statement due to user request"
# What a transaction has too much of, as half of it may not have → the setting that says how much that is.
_OVERSIZED = {
    "53200": "max_locks_per_transaction",
    "53400": "timescaledb.max_tuples_decompressed_per_dml_transaction",
    "57014": "statement_timeout",
    "25P04": "transaction_timeout",  # ends the session, too
}

# Of libpq, and of poolers, whose SQLSTATE is one for all that they say.
_CREDENTIALS = re.compile("authentication failed|no password supplied|no pg_hba.conf entry|no such user")
_ADDED = re.compile(r"^connection (?:failed|is bad): |\s*Is the server running [^?]*\?")
"""Around what keeps a connection from being made: what psycopg says of all, and what libpq asks whoever reads it."""
_NO_DATABASE = re.compile('no such database|database "[^"]*" does not exist')

_REMEDIES = {
    "42P01": "run `eventwriter schema apply`",  # no such table
    "42703": "run `eventwriter schema apply`",  # no such column
    "25006": "a standby, or default_transaction_read_only; of several hosts in postgres.dsn one that writes is used",
    FORBIDDEN: "`eventwriter schema check` names what the role lacks",
}


class RowRefused(Exception):
    """PostgreSQL, or the driver, refuses a row; ``line`` is its number in the COPY, from 1, when known."""

    def __init__(
        self, line: int | None, sqlstate: str | None, detail: str, otherwise: EventWriterError | None = None
    ) -> None:
        """``otherwise`` is what it means if no row is to blame."""
        super().__init__(detail)
        self.line = line
        self.otherwise = otherwise
        self.reject = Reject("refused", detail[:500], None, sqlstate)


@contextmanager
def translated(connection: Connection[Any] | None = None) -> Iterator[None]:
    """Raises the typed error for what the driver raises, also while ``connection``, if given, is used."""
    try:
        yield
    except psycopg.Error as error:
        raise classify(error, connection) from error


@contextmanager
def needing(role: str, more: str = "") -> Iterator[None]:
    """For what people do, and what has no row to refuse: raises typed errors alone.

    Who may not is told which role of `schema sql --roles` may, and what it takes ``more``.
    """
    try:
        yield
    except RowRefused as refusal:  # 22P05: the encoding of the database lacks what is asked for
        code = refusal.reject.sqlstate
        kind = UsageError if code == "22P05" else SchemaError
        raise refusal.otherwise or kind(f"PostgreSQL: {refusal} ({code})") from refusal
    except SchemaError as error:
        cause = error.__cause__
        if not isinstance(cause, psycopg.Error) or cause.sqlstate != FORBIDDEN:
            raise
        told = _said(cause, dsn.told(cause).splitlines()[0])
        takes = f"this takes the role eventwriter_{role} of `eventwriter schema sql --roles`"
        raise SchemaError(f"{told}: {takes}{more and f', and {more}'}") from cause


@contextmanager
def about_ours(connection: Connection[Any]) -> Iterator[None]:
    """For statements on eventwriter's own tables: what they refuse is about no row of a stream, but about what
    somebody made there."""
    try:
        yield
    except psycopg.Error as error:
        meant = classify(error, connection)
        if isinstance(meant, RowRefused) and error.sqlstate:
            told = f"eventwriter's own tables refuse what it writes there: {meant} ({error.sqlstate})"
            refusal = SchemaError(f"{told}: drop what `eventwriter schema apply` did not make")
            raise meant.otherwise or refusal from error
        raise


@contextmanager
def about_rows(connection: Connection[Any]) -> Iterator[None]:
    """For statements that write rows: what only may be about one is raised as a refusal, too."""
    try:
        yield
    except psycopg.Error as error:
        meant = classify(error, connection)
        lives = not connection.broken and error.diag.severity_nonlocalized == "ERROR"
        if lives and error.sqlstate and doubtful(error.sqlstate) and isinstance(meant, EventWriterError):
            raise RowRefused(None, error.sqlstate, str(meant), meant) from error
        raise


def doubtful(code: str) -> bool:
    """Whether it may be about a row, which only its neighbours tell: so is all that PostgreSQL has no meaning for."""
    return code in DOUBTFUL or code[:2] not in (*DATA, *NOT_DATA)


def explained(
    code: str | None, primary: str, detail: str | None = None, hint: str | None = None, constraint: str | None = None
) -> str:
    """What PostgreSQL says, with its DETAIL and HINT: in one line, and without the row, which is kept anyway."""
    whole_row = code in ("23502", "44000") or (code == "23514" and constraint)
    text = f"{primary}: {detail.rstrip('.')}" if detail and not whole_row else primary
    return " ".join((f"{text}, hint: {hint.rstrip('.')}" if hint else text).split())


def _said(error: psycopg.Error, first: str) -> str:
    diag = error.diag
    # Which processes are in whose way differs from one try to the next.
    detail = None if (error.sqlstate or "").startswith("40") else diag.message_detail
    told = explained(error.sqlstate, f"{first} ({error.sqlstate})", detail, diag.message_hint, diag.constraint_name)
    return f"PostgreSQL: {told}"


def _unconnected(text: str, pgconn: pq.abc.PGconn | None) -> EventWriterError:
    """What keeps a connection from being made: by SQLSTATE where a server told it, whose words may be in any language;
    those of libpq and of poolers are in English."""
    codes, line = greeting.codes(text), " ".join(_ADDED.sub("", text).split())
    if any(code.startswith("28") for code in codes) or _CREDENTIALS.search(text):
        return AuthenticationError(f"PostgreSQL refuses the credentials: {line}")
    if "3D000" in codes or _NO_DATABASE.search(text):
        return ConfigurationError(f"{line}: create it, or correct postgres.dsn")
    if FORBIDDEN in codes:  # to connect to the database, or to set what the options say
        return ConfigurationError(f"{line}: GRANT CONNECT ON the database to the role, or GRANT SET ON the parameter")
    if mistake := mistakes.told(text, codes):
        return ConfigurationError(mistake)
    options = {each.keyword.decode(): (each.val or b"").decode() for each in pgconn.info} if pgconn else {}
    cause = tls.words(text, options)
    return UnavailableError(f"PostgreSQL cannot be reached: {line}{cause and f': {cause}'}")


def classify(error: psycopg.Error, connection: Connection[Any] | None = None) -> Exception:
    """The typed error for what PostgreSQL or the driver says, by SQLSTATE class.

    Rows (22, 23, 44, 54, P0) → a refusal; passing trouble (40, 53, 57 …) → UnavailableError, or OversizedError if less
    at once may do; credentials → AuthenticationError; all else (42: schema, permission) → SchemaError. What ends the
    session says nothing about rows or tables, whatever its code (an upgraded extension: FATAL 42710): UnavailableError.
    Only credentials and a missing database end one, too, and do not pass: whoever connects is told; ``connection``,
    which served already, is replaced by a new one, which will be told. Without a SQLSTATE it is the driver that speaks:
    of the connection, or of a value without a form for PostgreSQL, which is a refusal.
    """
    code = error.sqlstate
    text = dsn.told(error)
    first = text.splitlines()[0]
    if code is None and isinstance(error, psycopg.DataError):
        return RowRefused(None, None, f"{type(error).__name__}: {first}")
    if code is None:
        return _unconnected(text, error.pgconn)
    if code == "25P04":
        return OversizedError(f"PostgreSQL: {first} ({code})", _OVERSIZED[code])
    if connection is not None and connection.broken:
        return UnavailableError(f"PostgreSQL ended the session: {first} ({code})")
    if code.startswith("28"):
        return AuthenticationError(f"PostgreSQL refuses the credentials: {first}")
    if code == "3D000":
        return ConfigurationError(f"{first}: create the database, or correct postgres.dsn")
    # Not the severity that is shown: that is in the language of lc_messages.
    if error.diag.severity_nonlocalized in ("FATAL", "PANIC"):
        return UnavailableError(f"PostgreSQL ended the session: {first} ({code})")
    # A policy of row security forbids a row, with the SQLSTATE of a privilege that lacks.
    if code[:2] in DATA or (code == FORBIDDEN and error.diag.source_function == "ExecWithCheckOptions"):
        match = _COPY_LINE.search(error.diag.context or "")
        diag = error.diag
        told = explained(
            code, diag.message_primary or first, diag.message_detail, diag.message_hint, diag.constraint_name
        )
        # Or a limit of the server, which passes: a queue of notifications that is full, transaction ids used up.
        otherwise = UnavailableError(_said(error, first)) if code.startswith("54") else None
        return RowRefused(int(match.group(1)) if match else None, code, told, otherwise)
    if code in _OVERSIZED and first != _CANCELLED:
        return OversizedError(_said(error, first), _OVERSIZED[code])
    remedy = f": {_REMEDIES[code]}" if code in _REMEDIES else ""
    if code[:2] in _TRANSIENT or code == "42P05":  # of a pooler that is not known as one: another name may do
        by_hand = error.diag.source_function == "exec_stmt_raise"
        return (RaisedError if by_hand else UnavailableError)(_said(error, first) + remedy)
    return SchemaError(_said(error, first) + remedy)
