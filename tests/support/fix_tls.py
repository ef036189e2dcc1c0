"""Fixture: certificates for servers on this machine, and an authority that signs them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme


@dataclass(frozen=True)
class Certificates:
    """PEM files. ``server`` is good for 127.0.0.1 and localhost; all but the authorities hold their key as well."""

    ca: Path
    server: Path
    client: Path
    stranger: Path
    """Another authority, that signed ``foreign``."""
    foreign: Path
    expired: Path
    soon: Path
    """Expires within days."""
    elsewhere: Path
    """Good for another host."""

    @property
    def tls(self) -> str:
        """What makes NATS demand TLS, in its configuration file."""
        return f"cert_file: '{self.server}', key_file: '{self.server}'"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of this run."""
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = trustme.CA(), trustme.CA()
    here, past = ("127.0.0.1", "localhost"), datetime.now(UTC) - timedelta(days=2)
    issued = {
        "server": authority.issue_cert(*here),
        "client": authority.issue_cert("eventwriter"),
        "foreign": stranger.issue_cert(*here),
        "expired": authority.issue_cert(*here, not_before=past, not_after=past + timedelta(days=1)),
        "soon": authority.issue_cert(*here, not_after=datetime.now(UTC) + timedelta(days=5, hours=1)),
        "elsewhere": authority.issue_cert("elsewhere.example"),
    }
    blobs = {name: each.private_key_and_cert_chain_pem for name, each in issued.items()}
    blobs |= {"ca": authority.cert_pem, "stranger": stranger.cert_pem}
    for name, blob in blobs.items():
        blob.write_to_path(folder / f"{name}.pem")
    return Certificates(**{name: folder / f"{name}.pem" for name in blobs})
