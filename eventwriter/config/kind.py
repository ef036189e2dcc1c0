"""What holds for a setting of whatever kind: how its value is read, shown, and refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_UNFIT = re.compile("[\0\ud800-\udfff]")
"""What no program takes: NUL, and bytes of the environment or the command line that are not UTF-8."""


class Expected(ValueError):
    """A value is wrong in a way that says more than the kind's own ``expected``."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How one setting is read and shown."""

    expected: str
    """What a value has to be, for the message that refuses another."""
    rule: Callable[[object], Any]
    """The checked value of what TOML gave, as far as that differs from kind to kind; raises as ``parse`` does."""
    from_text: Callable[[str], object] = lambda text: text
    """Turns text from the environment or the command line into what TOML would have given."""
    show: Callable[[Any], Any] = lambda value: value
    """A checked value as TOML and JSON hold it."""
    mask: Callable[[str], str] | None = None
    """Hides the secret part of a text; None: it holds no secret."""
    from_file: bool = False
    """Whether the environment may name a file that holds the value (``…_FILE``)."""

    def parse(self, value: object) -> Any:
        """The checked value of what TOML gave; raises ValueError, or Expected if there is more to say."""
        found = self.rule(value)
        if any(map(_UNFIT.search, _texts(value))):
            raise Expected("text in UTF-8, without NUL")
        return found


def _texts(value: object) -> Iterator[str]:
    """All that is text in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from _texts(each)
