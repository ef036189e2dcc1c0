"""Where pytest finds the fixtures, what it passes on, and how hypothesis goes about it."""

import signal

from hypothesis import HealthCheck, settings

pytest_plugins = ["fix_servers", "fix_service", "fix_proxy", "fix_tls", "fix_failover"]

# The same examples in every run, whoever runs it and on whatever machine. How long one takes says how busy that machine
# is, or that hypothesis is building its tables of Unicode, which it does inside the first example of a fresh clone.
# Fixtures of a test may be shared by its examples: such a test begins each with what it needs.
settings.register_profile(
    "same",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("same")


def pytest_configure() -> None:
    """Lets Ctrl-C reach what the tests start, also when a shell runs them in the background, with SIGINT ignored.

    Who is started inherits what is ignored, but not a handler. For pytest itself nothing changes.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: None)
