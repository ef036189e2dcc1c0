"""The file of NATS credentials: a user's JWT, and the seed of the key that signs what the server asks to be signed."""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import nats.errors
import nkeys  # type: ignore[import-untyped]

_PARTS = {
    "JWT": re.compile(rb"-+BEGIN NATS USER JWT-+\s+([\w.=-]+)\s"),
    "NKEY seed": re.compile(rb"-+BEGIN USER NKEY SEED-+\s+(\w+)\s"),
}


class Unusable(nats.errors.InvalidUserCredentialsError):
    """The file lacks a part. A NATS error, so the client tells, and tries again: the file may be half written."""

    def __init__(self, file: str, part: str) -> None:
        super().__init__()
        self._text = f"{file} holds no {part} of a user, as `nsc generate creds` writes it"

    def __str__(self) -> str:
        return self._text


def options(file: str) -> dict[str, Any]:
    """The client's options for this file, which is read at every connection: it may have been replaced meanwhile.

    nats-py's own way reads for ever if there is no JWT.
    """

    def part(name: str) -> bytearray:
        found = _PARTS[name].search(Path(file).read_bytes() + b"\n")
        if found is None:
            raise Unusable(file, name)
        return bytearray(found[1])

    def sign(nonce: str) -> bytes:
        try:
            key = nkeys.from_seed(part("NKEY seed"))
        except nkeys.NkeysError:
            raise Unusable(file, "NKEY seed") from None
        try:
            return b64encode(key.sign(nonce.encode()))
        finally:
            key.wipe()

    return {"user_jwt_cb": lambda: part("JWT"), "signature_cb": sign}
