"""What must hold between settings, beyond each one's own type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from eventwriter.config.model import Config, HttpConfig, HttpTlsConfig, NatsConfig, StreamConfig, TlsConfig
from eventwriter.config.naming import one_line
from eventwriter.config.units import format_duration
from eventwriter.errors import ConfigurationError
from eventwriter.stream import Stream


def check(config: Config, origins: Mapping[str, str], declared: Mapping[str, Stream]) -> None:
    """Raises ConfigurationError for the first combination that cannot work; ``origins`` is by dotted key."""
    problem = next(_problems(config, declared), None)
    if problem is not None:
        key, text = problem
        raise ConfigurationError(f"{key} ({origins[key]}): {text}")


def _problems(config: Config, declared: Mapping[str, Stream]) -> Iterator[tuple[str, str]]:
    yield from _nats(config.nats)
    yield from _http(config.http)
    durables: dict[tuple[str, str], str] = {}
    for stream in config.streams.values():
        yield from _stream(stream, config.postgres.statement_timeout)
        yield from _omit(stream, declared[stream.name])
        yield from _decoder(stream, declared[stream.name])
        other = durables.setdefault((stream.stream, stream.durable), stream.name) if stream.enabled else stream.name
        if other != stream.name:
            text = f"consumer {stream.durable} of stream {stream.stream} is that of streams.{other} too"
            yield f"streams.{stream.name}.durable", f"{text}: expected a name of its own"


def _nats(nats: NatsConfig) -> Iterator[tuple[str, str]]:
    if nats.user is not None and nats.password is None:
        yield "nats.user", "a user without a password: expected nats.password as well"
    if nats.password is not None and nats.user is None:
        yield "nats.password", "a password without a user: expected nats.user as well"
    ways = [key for key in ("credentials", "user", "token", "nkey") if getattr(nats, key) is not None]
    if len(ways) > 1:
        yield f"nats.{ways[1]}", f"both nats.{ways[0]} and nats.{ways[1]} are set: expected one way to log in"
    if nats.domain is not None and nats.api_prefix is not None:
        text = f"both nats.domain and nats.api_prefix are set, and a domain is the prefix $JS.{nats.domain}.API"
        yield "nats.api_prefix", f"{text}: expected one of them"
    yield from _pair("nats.tls", nats.tls)


def _pair(section: str, tls: TlsConfig | HttpTlsConfig) -> Iterator[tuple[str, str]]:
    if tls.cert is not None and tls.key is None:
        yield f"{section}.cert", f"a certificate without its key: expected {section}.key as well"
    if tls.key is not None and tls.cert is None:
        yield f"{section}.key", f"a key without its certificate: expected {section}.cert as well"


def _http(http: HttpConfig) -> Iterator[tuple[str, str]]:
    yield from _pair("http.tls", http.tls)
    if not (http.is_local or http.public or http.token is not None):
        text = f"{http.listen} can be reached from other machines: expected http.token as well, or http.public = true"
        yield "http.listen", f"{text} to serve them /livez, /readyz and /metrics alone"


def _stream(stream: StreamConfig, statement_timeout: float) -> Iterator[tuple[str, str]]:
    writer, prefix = stream.writer, f"streams.{stream.name}"
    if writer.ack == "all" and stream.processes > 1:
        text = f'"all" with {stream.processes} processes would acknowledge what another process still writes'
        yield f"{prefix}.ack", f'{text}: expected "each", or processes = 1'
    if stream.continues == stream.durable:
        yield (
            f"{prefix}.continues",
            f"{stream.durable} cannot go on with its own ledger: expected another durable's name",
        )
    if writer.linger >= writer.ack_wait:
        linger, wait = format_duration(writer.linger), format_duration(writer.ack_wait)
        yield f"{prefix}.linger", f'"{linger}" is not below ack_wait "{wait}": expected a fraction of it'
    if stream.enabled and writer.stall_timeout <= statement_timeout:
        stall, statement = format_duration(writer.stall_timeout), format_duration(statement_timeout)
        text = f'"{stall}" would kill a worker during a statement that postgres.statement_timeout "{statement}" allows'
        yield f"{prefix}.stall_timeout", f"{text}: expected more than that"


def _decoder(stream: StreamConfig, declared: Stream) -> Iterator[tuple[str, str]]:
    prefix = f"streams.{stream.name}"
    if stream.decoder is None or declared.columns:
        for key in ("decoder", "columns", "rest"):
            if getattr(stream, key) is not None:
                yield f"{prefix}.{key}", f"{stream.name} has a decoder of its own: expected a stream of another name"
    elif stream.columns is None:
        wanted = 'expected the columns with their paths, such as { time = "ts", text = "message.text" }'
        yield f"{prefix}.columns", f"a stream without code is made of them: {wanted}"
    elif stream.rest in stream.columns:
        yield f"{prefix}.rest", f"{stream.rest} has a path in {prefix}.columns: expected another column"


def _omit(stream: StreamConfig, declared: Stream) -> Iterator[tuple[str, str]]:
    may = [column.name for column in (*declared.columns, *declared.computed) if not column.core]
    for name in stream.omit:
        if name not in may:
            core = any(column.name == name for column in declared.columns)
            why = "is core: without it rows lose what they are about" if core else "is no column of the stream"
            known = f"some of {', '.join(may)}" if may else "none, for all its columns are core"
            yield f"streams.{stream.name}.omit", f"{one_line(name[:100])} {why}: expected {known}"
