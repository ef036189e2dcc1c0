"""Work that goes on in a thread of its own while a test does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs ``work`` until the block ends, which sets the event that it is given; what it raises fails the test."""
    ended = threading.Event()
    failures: list[Exception] = []

    def run() -> None:
        try:
            work(ended)
        except Exception as error:  # noqa: BLE001 - told by the main thread
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not failures, failures
