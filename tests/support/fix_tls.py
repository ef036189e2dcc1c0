"""Fixture: certificates for servers on this machine, and an authority that signs them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme


@dataclass(frozen=True)
class Certificates:
    """PEM files. ``server`` is good for 127.0.0.1 and localhost; each holds its key as well."""

    ca: Path
    server: Path
    client: Path

    @property
    def tls(self) -> str:
        """What makes NATS demand TLS, in its configuration file."""
        return f"cert_file: '{self.server}', key_file: '{self.server}'"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of this run."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, identity in (("server", "127.0.0.1"), ("client", "eventwriter")):
        authority.issue_cert(identity, "localhost").private_key_and_cert_chain_pem.write_to_path(folder / f"{name}.pem")
    return Certificates(folder / "ca.pem", folder / "server.pem", folder / "client.pem")
