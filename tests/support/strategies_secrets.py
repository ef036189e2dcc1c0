"""Secrets that strings may be cut in, and the parts of them of which none may be seen."""

from __future__ import annotations

from hypothesis import strategies as st

TOKENS = ("Qzx7Wv", "40271", "Kpp3Jt")
"""One of them could be a port."""
ODD = "@/:?#%&='\"\\,;+ \t\n[](){}$!~^|<>`0ä"


def secrets(odd: str = ODD) -> st.SearchStrategy[str]:
    """Tokens, with characters of ``odd`` between them."""
    parts = st.lists(st.tuples(st.sampled_from(TOKENS), st.text(odd, max_size=3)), min_size=1, max_size=4)
    return parts.map(lambda pairs: "".join(token + between for token, between in pairs))


def seen(text: str) -> list[str]:
    """The tokens in a text."""
    return [token for token in TOKENS if token in text]
