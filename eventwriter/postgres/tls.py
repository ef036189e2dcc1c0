"""What TLS to PostgreSQL failed of, in words: libpq says little more than that it did."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping

_SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"
_SECONDS = 3.0
_ALERT = re.compile(
    r"alert (unknown ca|bad certificate|(?:unsupported )?certificate(?: expired| revoked| unknown| required)?"
    r"|access denied|decrypt error|handshake failure)"
)
_EXPIRED = 10
"""X509_V_ERR_CERT_HAS_EXPIRED."""


def words(said: str, options: Mapping[str, str]) -> str:
    """The cause and what to do, for what libpq says of a connection with these options; empty if it is not of TLS."""
    if "certificate verify failed" in said:
        return f"the certificate of the server is refused{_verdict(options)}"
    if alert := _ALERT.search(said):
        if alert[1] in ("certificate required", "handshake failure"):
            return "the server asks for a certificate of ours: sslcert and sslkey in postgres.dsn name it"
        return f"the server refuses our certificate, sslcert in postgres.dsn: {alert[1]}"
    if options.get("sslnegotiation") == "direct" and ("unexpected eof" in said or "wrong version number" in said):
        return "the server takes no TLS before it is asked (PostgreSQL 17 does): sslnegotiation=postgres asks for it"
    return ""


def _verdict(options: Mapping[str, str]) -> str:
    """Why, and a remedy: a handshake of our own, as libpq's says no more. Nothing of ours is sent."""
    address = options.get("hostaddr") or options.get("host") or "localhost"
    root = options.get("sslrootcert", "")
    try:
        context = ssl.create_default_context(cafile=None if root in ("", "system") else root)
        context.check_hostname = False  # which libpq does by itself, and in words
        with socket.create_connection((address, int(options.get("port") or 5432)), _SECONDS) as connection:
            if options.get("sslnegotiation") != "direct":
                connection.sendall(_SSL_REQUEST)
                if connection.recv(1) != b"S":
                    return ""
            with context.wrap_socket(connection, server_hostname=options.get("host")):
                return ""
    except ssl.SSLCertVerificationError as error:
        signer = "sslrootcert has to hold the certificate of who signed it"
        return f": {error.verify_message.rstrip('.')}; {'renew it' if error.verify_code == _EXPIRED else signer}"
    except (OSError, ValueError):
        return ""
