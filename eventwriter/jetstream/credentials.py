"""How a client says who it is. Files are read at every connection: they may have been replaced meanwhile."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import nats.aio.client
import nats.errors
import nkeys  # type: ignore[import-untyped]

from eventwriter.config import secrets
from eventwriter.config.model import NatsConfig
from eventwriter.errors import ConfigurationError

_PARTS = {
    "JWT": re.compile(rb"-+BEGIN NATS USER JWT-+\s+([\w-]+\.[\w-]+\.[\w-]+)\s"),
    "NKEY seed": re.compile(rb"-+BEGIN USER NKEY SEED-+\s+(SU[A-Z2-7]{56})\s"),
}


class Unusable(nats.errors.Error):
    """A file cannot be used. A NATS error, so a client that reconnects tells, and tries on: it may be half written."""


def options(settings: NatsConfig, client: nats.aio.client.Client) -> dict[str, Any]:
    """The options of ``client`` for its login; raises Unusable if a file lacks something already."""
    if settings.credentials is not None:
        file, where = settings.credentials, f"nats.credentials: {settings.credentials}"
        _part(file, "JWT"), _signer(_part(file, "NKEY seed"), where).wipe()
        return {
            "user_jwt_cb": lambda: _part(file, "JWT"),
            "signature_cb": lambda nonce: _signed(nonce, _signer(_part(file, "NKEY seed"), where)),
        }
    if settings.nkey is not None:
        seed = _now("nats.nkey", settings.nkey)

        def sign(nonce: str) -> bytes:
            key = _signer(bytearray(seed().encode()), "nats.nkey")
            client._public_nkey = key.public_key.decode()  # of the seed as it is now; the client sends both
            return _signed(nonce, key)

        _signer(bytearray(seed().encode()), "nats.nkey").wipe()
        return {"signature_cb": sign}
    if settings.user is not None:
        return {"user": settings.user, "password": _now("nats.password", settings.password or "")}
    return {} if settings.token is None else {"token": _now("nats.token", settings.token)}


def _now(name: str, value: str) -> Callable[[], str]:
    def read() -> str:
        try:
            return secrets.current(name, value)
        except ConfigurationError as error:
            raise Unusable(str(error)) from None

    return read


def _part(file: str, name: str) -> bytearray:
    try:
        text = secrets.read(file)
    except OSError as error:
        raise Unusable(f"nats.credentials: cannot read the file {file}: {error.strerror}") from None
    found = _PARTS[name].search(text + b"\n")
    if found is None:
        raise Unusable(f"nats.credentials: {file} holds no {name} of a user, as `nsc generate creds` writes it")
    return bytearray(found[1])


def _signer(seed: bytearray, where: str) -> Any:
    try:
        prefix, raw = nkeys.decode_seed(seed)
    except nkeys.NkeysError:
        prefix = raw = None
    # The library takes a seed with a wrong checksum.
    if prefix != nkeys.PREFIX_BYTE_USER or nkeys.encode_seed(bytes(raw), prefix) != seed:
        raise Unusable(f"{where} holds no NKEY seed of a user: it is damaged")
    return nkeys.from_seed(seed)


def _signed(nonce: str, key: Any) -> bytes:
    try:
        return b64encode(key.sign(nonce.encode()))
    finally:
        key.wipe()
