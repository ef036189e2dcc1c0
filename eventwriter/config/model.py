"""The settings of eventwriter: their names, types, defaults and what is allowed."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from eventwriter.config import kinds
from eventwriter.config.kind import Kind


def _key(kind: Kind, default: Any = None) -> Any:
    """A setting; its value does not show in repr() if it may hold a secret."""
    return field(default=default, repr=kind.mask is None, metadata={"kind": kind})


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """``[nats.tls]``: encryption of the connection to NATS. Files are PEM."""

    ca: str | None = _key(kinds.FILE)
    """Certificates that sign the server's; default: those of the system."""
    cert: str | None = _key(kinds.FILE)
    key: str | None = _key(kinds.FILE)
    hostname: str | None = _key(kinds.TEXT)
    """Name in the server's certificate, when it is not the one of the URL."""
    handshake_first: bool = _key(kinds.BOOL, False)
    """TLS before the server says anything, for servers that are set so."""


@dataclass(frozen=True, slots=True)
class NatsConfig:
    """``[nats]``: where JetStream is and who we are there."""

    url: tuple[str, ...] = _key(kinds.URLS, ("nats://127.0.0.1:4222",))
    credentials: str | None = _key(kinds.FILE)
    """Path of a .creds file."""
    user: str | None = _key(kinds.TEXT)
    password: str | None = _key(kinds.SECRET)
    token: str | None = _key(kinds.SECRET)
    nkey: str | None = _key(kinds.NKEY)
    """Seed of a user's key, for servers that know the key and ask for no JWT."""
    domain: str | None = _key(kinds.NAME)
    """The JetStream domain that has the streams, where that is not the one of the servers at ``url``."""
    api_prefix: str | None = _key(kinds.PREFIX)
    """What the subjects of JetStream's API begin with, where an account imports it under another name."""
    inbox_prefix: str = _key(kinds.PREFIX, "_INBOX")
    """What the subjects of messages to us and of answers begin with."""
    tls: TlsConfig = TlsConfig()

    @property
    def api(self) -> str:
        """What the subjects of JetStream's API begin with."""
        return self.api_prefix or (f"$JS.{self.domain}.API" if self.domain else "$JS.API")

    @property
    def tls_asked_by(self) -> str:
        """What asks for TLS, for people; then it holds for every server. Empty: TLS is used where a server asks."""
        schemes = ["tls://"] if any(url.startswith("tls://") for url in self.url) else []
        keys = [f"nats.tls.{key}" for key in kinds_of(TlsConfig) if getattr(self.tls, key)]
        return next(iter([f"{scheme} in nats.url" for scheme in schemes] + keys), "")


@dataclass(frozen=True, slots=True)
class PostgresConfig:
    """``[postgres]``: the database."""

    dsn: str = _key(kinds.DSN, "")
    """libpq conninfo or URI. What it does not say is taken from libpq's environment (PG*) and defaults."""
    password: str | None = _key(kinds.SECRET)
    """Used when ``dsn`` holds no password; then it goes before PGPASSWORD and the password file."""
    pool_size: int = _key(kinds.integer(1, 1000), 2)
    """Connections a worker may open."""
    statement_timeout: float = _key(kinds.duration(), 60.0)
    """Seconds."""
    connect_timeout: float = _key(kinds.duration(), 10.0)
    """Seconds."""


@dataclass(frozen=True, slots=True)
class WriterConfig:
    """``[writer]``: how streams are written; each stream may override any of it."""

    batch_messages: int = _key(kinds.integer(1, 1_000_000), 10_000)
    batch_bytes: int = _key(kinds.size(1, 2**30), 8 * 2**20)
    """Bytes of payload."""
    linger: float = _key(kinds.duration(0.0), 0.01)
    """Seconds a batch waits for more after its first message."""
    ack: Literal["each", "all"] = _key(kinds.choice("each", "all"), "each")
    ack_wait: float = _key(kinds.duration(0.1), 10.0)
    """Seconds after which JetStream delivers a message again that is neither acknowledged nor being worked on."""
    drain_timeout: float = _key(kinds.duration(), 25.0)
    """Seconds that a worker has to finish after SIGTERM."""
    stall_timeout: float = _key(kinds.duration(), 120.0)
    """Seconds without a sign of life after which a worker is killed and started anew."""


@dataclass(frozen=True, slots=True)
class HttpTlsConfig:
    """``[http.tls]``: encryption of what is served over HTTP. Files are PEM."""

    cert: str | None = _key(kinds.FILE)
    key: str | None = _key(kinds.FILE)


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """``[http]``: metrics, health and the page."""

    listen: str = _key(kinds.LISTEN, "127.0.0.1:9465")
    token: str | None = _key(kinds.TOKEN)
    """Asked of everybody but for the probes; needed where others than this machine can reach the page."""
    public: bool = _key(kinds.BOOL, False)
    """Everybody may see /livez, /readyz and /metrics; without a token there is nothing else then."""
    tls: HttpTlsConfig = HttpTlsConfig()

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        host, _ = self.address
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host.lower() == "localhost"

    @property
    def address(self) -> tuple[str, int]:
        """Host, without the brackets of IPv6, and port."""
        host, _, port = self.listen.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """``[log]``: what goes to standard error."""

    format: Literal["auto", "text", "json"] = _key(kinds.choice("auto", "text", "json"), "auto")
    """``auto``: text on a terminal, JSON elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = _key(
        kinds.choice("debug", "info", "warning", "error"), "info"
    )


@dataclass(frozen=True, slots=True)
class DeadLettersConfig:
    """``[dead_letters]``: how long they are kept."""

    keep: float | None = _key(kinds.duration(60.0, 100 * 365 * 86_400.0))
    """Seconds after which a stream's worker removes them, replayed or not; None: never."""


@dataclass(frozen=True, slots=True)
class PluginsConfig:
    """``[plugins]``: streams that do not come with eventwriter."""

    folders: tuple[str, ...] = _key(kinds.FOLDERS, ())
    """Each stream in there is a file ``alerts.py``, with ``alerts.sql`` beside it if the table is its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """``[streams.NAME]``: one logical stream."""

    name: str
    enabled: bool = _key(kinds.BOOL, True)
    stream: str = _key(kinds.NAME)
    """Name in JetStream; default: ``name``."""
    durable: str = _key(kinds.NAME)
    """Name of the durable consumer; default: ``eventwriter-<name in lower case>``."""
    continues: str | None = _key(kinds.NAME)
    """The durable of which this one takes over the ledger when it is new, so that nothing is written twice."""
    subjects: tuple[str, ...] = _key(kinds.filters(none_allowed=False))
    """Filters of the consumer; default: what the stream declares."""
    exclude: tuple[str, ...] = _key(kinds.filters(none_allowed=True), ())
    """Messages of these subjects are acknowledged and not written."""
    omit: tuple[str, ...] = _key(kinds.COLUMNS, ())
    """Columns that are not written, and of which nothing is said; none that is core."""
    table: str = _key(kinds.TABLE)
    """Target table, ``schema.name`` or found by the search_path; default: what the stream declares."""
    processes: int = _key(kinds.integer(1, 256), 1)
    decoder: Literal["json"] | None = _key(kinds.choice("json"))
    """For a stream that needs no code: how ``columns`` and ``rest`` are filled."""
    columns: Mapping[str, str] | None = _key(kinds.PATHS)
    """Column → the path of its value."""
    rest: str | None = _key(kinds.TEXT)
    """The column of what no path takes."""
    writer: WriterConfig = WriterConfig()
    """The values of [writer] with this stream's overrides."""

    @property
    def titles(self) -> list[str]:
        """The names of its processes."""
        several = range(1, self.processes + 1)
        return [self.name] if self.processes == 1 else [f"{self.name}/{number}" for number in several]


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, checked."""

    nats: NatsConfig
    postgres: PostgresConfig
    writer: WriterConfig
    http: HttpConfig
    log: LogConfig
    dead_letters: DeadLettersConfig
    plugins: PluginsConfig
    streams: Mapping[str, StreamConfig]


SECTIONS: tuple[tuple[str, type], ...] = (
    ("nats", NatsConfig),
    ("nats.tls", TlsConfig),
    ("postgres", PostgresConfig),
    ("writer", WriterConfig),
    ("http", HttpConfig),
    ("http.tls", HttpTlsConfig),
    ("log", LogConfig),
    ("dead_letters", DeadLettersConfig),
    ("plugins", PluginsConfig),
)
"""The tables of the file besides [streams.NAME], in the order they are shown."""


def kinds_of(section: type) -> dict[str, Kind]:
    """The settings that a section holds itself, by name."""
    return {f.name: f.metadata["kind"] for f in fields(section) if "kind" in f.metadata}


def stream_kinds() -> dict[str, Kind]:
    """The settings of one stream by name: its own, and its overrides of [writer]."""
    return kinds_of(StreamConfig) | kinds_of(WriterConfig)


def all_kinds(streams: Mapping[str, object]) -> dict[str, Kind]:
    """Every setting by its dotted key, such as ``streams.LOGS.table``."""
    found = {f"{name}.{key}": kind for name, section in SECTIONS for key, kind in kinds_of(section).items()}
    return found | {f"streams.{name}.{key}": kind for name in streams for key, kind in stream_kinds().items()}
