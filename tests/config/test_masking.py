"""Secrets: hidden in every error and every line of the log, whoever wrote the text."""

from __future__ import annotations

import asyncio
import io
import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients import Silent
from eventwriter import masking
from eventwriter.config import loading
from eventwriter.config.model import LogConfig
from eventwriter.errors import ConfigurationError, EventWriterError, UnavailableError
from eventwriter.jetstream.connection import Client, connect
from eventwriter.observability import logs
from profiles import examples
from strategies_secrets import ODD, URL_TEMPLATES, secrets, seen

SEED = "SUAMK2FG4MI6UE3ACF3FK3OIQBCEIEZV7NSWFFEW63UXMRLFM2XLAXK4GY"
KEY = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
"""A seed of a key, and the key, which is public."""
JWT = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.eyJqdGkiOiJzM2NyZXQifQ.c2lnbmF0dXJl"
TEXTS = [
    ('database "postgresql://u:s3@cret@h/d" does not exist', 'database "postgresql://***@h/d" does not exist'),
    ("nats://u:s3cret@h and nats://s3cret@h:1", "nats://***@h and nats://***@h:1"),
    ("h password = s3cret port=1", "h password = *** port=1"),
    ("PGPASSWORD=s3cret", "PGPASSWORD=***"),
    ("passwd='s3 \\' cret' x", "passwd=*** x"),
    ('token="s3 cret"', "token=***"),
    ("pwd='s3 cret", "pwd=***"),
    (f"seed {SEED}, key {KEY}", f"seed ***, key {KEY}"),
    (f'bad "{JWT}".', 'bad "***".'),
    ("Authorization: Bearer s3cret x", "Authorization: *** x"),
    ("Invalid header value b'Bearer s3cret-1\\n'", "Invalid header value b'Bearer ***"),
    ("shown as a bearer token", "shown as a bearer token"),
    ("serving http://127.0.0.1:9465/", "serving http://127.0.0.1:9465/"),
    ("check nats.password, nats.token: see a@b", "check nats.password, nats.token: see a@b"),
]


@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_logins_and_what_is_assigned_to_a_secret(text: str, shown: str) -> None:
    """Hidden wherever it stands; all else stays as it is."""
    assert masking.text(text) == shown
    assert masking.text(shown) == shown
    assert str(UnavailableError(text)) == shown


@pytest.mark.parametrize("formatter", [logs.Json(), logs.Readable()])
def test_the_log_has_no_secrets(formatter: logging.Formatter) -> None:
    """Neither the line nor the traceback of a bug, nor of what caused it."""
    log, written = logging.Logger("test"), io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(formatter)
    log.addHandler(handler)
    try:
        try:
            raise OSError("cannot reach tls://u:s3cret@h")
        except OSError as error:
            raise ValueError("password=s3cret") from error
    except ValueError:
        log.exception("trouble with %s", "nats://s3cret@h")
    assert "s3cret" not in written.getvalue()
    assert all(text in written.getvalue() for text in ("with nats://***@h", "tls://***@h", "ValueError: password=***"))


def test_the_pool_does_not_tell_what_libpq_says() -> None:
    """Its warnings quote connection strings, and come once a try."""
    before = logging.getLogger().handlers, logging.getLogger().level
    written = io.StringIO()
    try:
        logs.configure(LogConfig(level="debug"), written)
        logging.getLogger("psycopg.pool").warning("error connecting: could not translate host name s3cret")
        logging.getLogger("eventwriter").warning("hello")
    finally:
        logging.getLogger().handlers, level = before
        logging.getLogger().setLevel(level)
    assert [json.loads(line)["message"] for line in written.getvalue().splitlines()] == ["hello"]


@settings(max_examples=examples(300))
@given(st.sampled_from(URL_TEMPLATES), secrets(ODD.replace(":", "")))  # a colon ends a user's name, which is shown
def test_no_part_of_a_login_is_seen(url: str, secret: str) -> None:
    """Whatever is in a NATS password or token: refused, shown or used, no part of it is told."""
    refusal = shown = ""
    try:
        loaded = loading.load({}, file=None, environ={}, flags={"nats.url": url.replace("{}", secret)})
    except ConfigurationError as error:
        refusal = str(error)
    else:
        shown = loading.render(loaded) + json.dumps(loading.as_dict(loaded)) + repr(loaded)
        with pytest.raises(EventWriterError) as caught:
            asyncio.run(connect(Client(), loaded.nats, "test", Silent()))
        shown += str(caught.value)
    assert refusal or shown
    assert not seen(refusal + shown)


PEM = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAs3cret\n-----END PRIVATE KEY-----\n"
CREDENTIALS = f"-----BEGIN NATS USER JWT-----\n{JWT}\n-----BEGIN USER NKEY SEED-----\n{SEED}\n"


@pytest.mark.parametrize("key", ["nats.credentials", "nats.tls.key", "nats.tls.cert", "nats.tls.ca", "http.tls.key"])
@pytest.mark.parametrize("text", [PEM, CREDENTIALS, SEED, JWT, PEM.replace("\n", " "), "nats://u:s3cret@h"])
def test_what_stands_in_a_file_is_no_path_of_one(key: str, text: str) -> None:
    """Whoever sets the text itself is told so, without a word of it."""
    with pytest.raises(ConfigurationError) as caught:
        loading.load({}, file=None, environ={}, flags={key: text})
    assert str(caught.value) == f"{key} = *** (flag): expected the path of a file, not what stands in it"


@pytest.mark.parametrize("nkey", [SEED.lower(), SEED[:-1], SEED.replace("SU", "SA", 1), KEY, f"{SEED}=", JWT])
def test_an_nkey_that_is_no_seed_of_a_user(nkey: str) -> None:
    """Refused, and not shown; one that is, neither."""
    with pytest.raises(ConfigurationError) as caught:
        loading.load({}, file=None, environ={}, flags={"nats.nkey": nkey})
    assert str(caught.value).startswith("nats.nkey = *** (flag): expected the seed of a user's nkey")
    loaded = loading.load({}, file=None, environ={}, flags={"nats.nkey": SEED, "http.token": "s3cret"})
    shown = loading.render(loaded) + json.dumps(loading.as_dict(loaded)) + repr(loaded)
    assert SEED not in shown
    assert "s3cret" not in shown
