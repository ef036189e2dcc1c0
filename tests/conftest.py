"""Where pytest finds the fixtures, what it passes on, and how hypothesis goes about it."""

import signal

import profiles  # noqa: F401 - scripts/fuzz chooses the other one

pytest_plugins = ["fix_servers", "fix_service", "fix_proxy", "fix_tls", "fix_failover"]


def pytest_configure() -> None:
    """Lets Ctrl-C reach what the tests start, also when a shell runs them in the background, with SIGINT ignored.

    Who is started inherits what is ignored, but not a handler. For pytest itself nothing changes.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: None)
