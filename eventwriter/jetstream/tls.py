"""TLS to NATS: the files, read at every connection, and what its errors mean."""

from __future__ import annotations

import ssl

from eventwriter.config import secrets
from eventwriter.config.model import TlsConfig
from eventwriter.jetstream.credentials import Unusable

_OURS = ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_EXPIRED", "CERTIFICATE_REVOKED", "CERTIFICATE_UNKNOWN",
         "UNSUPPORTED_CERTIFICATE", "ACCESS_DENIED", "DECRYPT_ERROR")  # fmt: skip
"""Alerts of a server about the certificate of its client."""
_NO_TLS = {"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
_REMEDIES = {
    10: "renew it",
    62: "nats.tls.hostname takes the name that stands in it",
    64: "nats.tls.hostname takes the name that stands in it",
}
"""By what OpenSSL calls X509_V_ERR_…: expired, another host name, another address."""


def context(tls: TlsConfig) -> ssl.SSLContext:
    """With the files as they are now; raises Unusable, which names the file."""
    for name in ("ca", "cert", "key"):
        file = getattr(tls, name)
        try:
            if file is not None:
                secrets.read(file)
        except OSError as error:
            raise Unusable(f"nats.tls.{name}: cannot read the file {file}: {error.strerror}") from None
    try:
        found = ssl.create_default_context(cafile=tls.ca)
    except (OSError, ValueError):
        raise Unusable(f"nats.tls.ca: {tls.ca} holds no certificate in PEM") from None
    if tls.cert is not None:
        try:
            # Without the password OpenSSL would ask the terminal for one.
            found.load_cert_chain(tls.cert, tls.key, password="")
        except (OSError, ValueError) as error:
            reason = (getattr(error, "reason", None) or "").replace("_", " ").lower()
            if reason == "key values mismatch":
                raise Unusable(f"nats.tls.key: {tls.key} is not the key of the certificate {tls.cert}") from None
            text = f"nats.tls: {tls.cert} has to hold a certificate, {tls.key} its key without a password, both in PEM"
            raise Unusable(text + (reason and f" ({reason})")) from None
    return found


def words(error: ssl.SSLError) -> str:
    """What went wrong, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = _REMEDIES.get(error.verify_code, "nats.tls.ca has to hold the certificate of who signed it")
        return f"the certificate of the server is refused: {error.verify_message.rstrip('.')}; {remedy}"
    reason = error.reason or ""
    said = reason.partition("ALERT_")[2]
    if said in ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE"):
        return f"the server asks for a certificate of ours: check nats.tls.cert and nats.tls.key ({said.lower()})"
    if said in _OURS:
        return f"the server refuses our certificate, nats.tls.cert: {said.replace('_', ' ').lower()}"
    if reason in _NO_TLS:
        return "what answers speaks no TLS: check nats.url and nats.tls.handshake_first"
    return f"TLS failed: {reason.replace('_', ' ').lower() or error}; check nats.tls and the server"
