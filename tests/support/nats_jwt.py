"""What `nsc` makes: an operator, an account, and users of it whom a NATS server knows by their JWT."""

from __future__ import annotations

import base64
import json
import os
import time
from typing import Any

import nkeys  # type: ignore[import-untyped]


class Key:
    """A key pair."""

    def __init__(self, prefix: int) -> None:
        self.seed: bytes = nkeys.encode_seed(os.urandom(32), prefix)
        self.public: str = self.pair().public_key.decode()

    def pair(self) -> Any:
        """For one signature."""
        return nkeys.from_seed(bytearray(self.seed))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(kind: str, subject: Key, issuer: Key, **claims: Any) -> str:
    """A JWT of NATS."""
    parts = (
        {"typ": "JWT", "alg": "ed25519-nkey"},
        {"jti": os.urandom(8).hex(), "iat": int(time.time()) - 5, "iss": issuer.public, "sub": subject.public,
         "name": kind, "nats": {"type": kind, "version": 2, **claims}},
    )  # fmt: skip
    text = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
    return f"{text}.{_encoded(issuer.pair().sign(text.encode()))}"


class Account:
    """An account with users, and the configuration of a server that has it."""

    def __init__(self) -> None:
        self._operator = Key(nkeys.PREFIX_BYTE_OPERATOR)
        self._key, self._system = Key(nkeys.PREFIX_BYTE_ACCOUNT), Key(nkeys.PREFIX_BYTE_ACCOUNT)

    def user(self) -> tuple[Key, str]:
        """A user more: its key, and its credentials as they stand in a file."""
        key = Key(nkeys.PREFIX_BYTE_USER)
        jwt = token("user", key, self._key, subs=-1, data=-1, payload=-1)
        return key, (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{key.seed.decode()}\n------END USER NKEY SEED------\n"
        )

    def config(self, *revoked: Key) -> str:
        """What a server is configured with, these users' credentials being revoked."""
        limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
        operator = token("operator", self._operator, self._operator)
        revocations = {key.public: int(time.time()) for key in revoked}
        account = token("account", self._key, self._operator, limits=limits, revocations=revocations)
        system = token("account", self._system, self._operator, limits=limits)
        preload = f"{{ {self._key.public}: {account}, {self._system.public}: {system} }}"
        return (
            f"operator: {operator}\nsystem_account: {self._system.public}\n"
            f"resolver: MEMORY\nresolver_preload: {preload}\n"
        )
