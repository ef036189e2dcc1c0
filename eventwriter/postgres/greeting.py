"""Connects so that a server that refuses tells its SQLSTATE, too: its words are in whatever language it has.

libpq keeps what a server says before there is a session as text alone, and leaves out the SQLSTATE unless it is told
otherwise (PQsetErrorVerbosity), which the driver has no way to.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import psycopg
from psycopg import pq
from psycopg.abc import PQGenConn
from psycopg.errors import finish_pgconn
from psycopg.waiting import Wait

_DEFAULT, _VERBOSE = 1, 2
_CODED = re.compile(r":  ([0-9A-Z]{5}): ([^\n]*)")
_LOCATION = re.compile(r"\nLOCATION:[^\n]*")
_CODE = re.compile(r" \(([0-9A-Z]{5})\)")


def connect(conninfo: str) -> PQGenConn[pq.abc.PGconn]:
    """The driver's generator of this name, with SQLSTATEs in the text of the error that it raises."""
    pgconn = pq.PGconn.connect_start(conninfo.encode())
    _set_verbosity(pgconn, _VERBOSE)
    what = "connection is bad"
    while pgconn.status != pq.ConnStatus.BAD:
        what = "connection failed"
        state = pgconn.connect_poll()
        if state == pq.PollingStatus.OK:
            _set_verbosity(pgconn, _DEFAULT)
            pgconn.nonblocking = 1
            return pgconn
        if state == pq.PollingStatus.FAILED:
            break
        while not (yield pgconn.socket, Wait.R if state == pq.PollingStatus.READING else Wait.W):
            pass
    text = _LOCATION.sub("", _CODED.sub(r":  \2 (\1)", pgconn.get_error_message()))
    raise psycopg.OperationalError(f"{what}: {text}", pgconn=finish_pgconn(pgconn))


def codes(text: str) -> set[str]:
    """The SQLSTATEs in the text of such an error, which may be of several servers."""
    return {*_CODE.findall(text)}


def _set_verbosity(pgconn: Any, verbosity: int) -> None:
    if (function := _function()) is not None:
        function(pgconn.pgconn_ptr, verbosity)


@cache
def _function() -> Callable[[int | None, int], int] | None:
    """libpq's, of the library that the driver uses; None where that cannot be reached."""
    try:
        library = ctypes.CDLL(str(sys.modules[pq.PGconn.__module__].__file__))  # finds what that is linked with
        function = library.PQsetErrorVerbosity
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_int], ctypes.c_int
    return cast(Callable[[int | None, int], int], function)
