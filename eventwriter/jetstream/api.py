"""Requests to NATS and to JetStream's API, with what their refusals mean."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from eventwriter.config.loading import NatsConfig
from eventwriter.errors import ConfigurationError, UnavailableError
from eventwriter.jetstream.permissions import REFUSED_PULL, Permissions

ANSWER_TIMEOUT = 5.0
"""Seconds to wait for an answer."""
STREAM_NOT_FOUND = 10059

Request = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]
"""Sends a JetStream API request (subject below the prefix of the API, body) and returns the answer, errors included."""


class Api:
    """One worker's requests. Of the loop thread."""

    def __init__(self, client: Client, permissions: Permissions, patience: float = ANSWER_TIMEOUT) -> None:
        self._client = client
        self._permissions = permissions
        self._patience = patience

    async def request(self, subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A ``Request``; raises UnavailableError if nobody answers, ForbiddenError if we may not ask."""
        # no body at all when there is nothing to say
        answer = await self._answer(subject, json.dumps(body).encode() if body else b"")
        parsed: dict[str, Any] = json.loads(answer.data)
        return parsed

    async def check_pull(self, stream: str, name: str) -> None:
        """Raises ForbiddenError if we may not pull from this consumer; a pull itself would wait for ever."""
        await self._answer(f"CONSUMER.MSG.NEXT.{stream}.{name}", REFUSED_PULL)

    async def _answer(self, subject: str, body: bytes) -> Msg:
        try:
            return await self.ask(self.subject(subject), body)
        except nats.errors.NoRespondersError:
            raise UnavailableError(_nobody(self._permissions.api)) from None
        except nats.errors.TimeoutError:
            raise UnavailableError(f"JetStream does not answer {subject.partition('.')[0].lower()} requests") from None

    def subject(self, below: str) -> str:
        """A subject of the API, below its prefix."""
        return f"{self._permissions.api}.{below}"

    async def ask(self, subject: str, body: bytes) -> Msg:
        """The answer to a request of any subject; raises nats-py's errors, and ForbiddenError if we may not ask."""
        return await self._permissions.asked(subject, self._client.request(subject, body, timeout=self._patience))

    async def probe(self, pulls: bool = True) -> None:
        """Asks for everything that a worker needs, without any effect; the permissions tell what is refused."""
        await self._permissions.probe(self._client.publish, self.ask, pulls)


def _nobody(api: str) -> str:
    if api == NatsConfig().api:
        return (
            "NATS has no JetStream for this account: enable it in the server, or set nats.domain to the domain, or "
            "nats.api_prefix to the import, by which its streams are reached from here"
        )
    return (
        f"nobody answers at {api}: check nats.domain and nats.api_prefix, and whether the leaf node is connected, or "
        "the account imports that"
    )


def failed(answer: Mapping[str, Any], what: str) -> Exception:
    """The error to raise for an answer that is one."""
    error = answer["error"]
    text = f"{what}: {error.get('description', 'unknown error')} ({error.get('err_code', error.get('code'))})"
    if int(error.get("code", 500)) in (500, 503) or error_code(answer) == STREAM_NOT_FOUND:
        return UnavailableError(text)
    return ConfigurationError(text)


def error_code(answer: Mapping[str, Any]) -> int:
    """JetStream's own code of an answer that is an error, 0 of any other."""
    return int(answer.get("error", {}).get("err_code", 0))
