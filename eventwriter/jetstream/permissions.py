"""What NATS must permit us: asked for at the start; what is refused later is told, and asked for until it is not."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from eventwriter.config.loading import NatsConfig, StreamConfig
from eventwriter.errors import ForbiddenError

log = logging.getLogger("eventwriter.source")
T = TypeVar("T")

Send = Callable[[str, bytes], Awaitable[Any]]

PROOF = 1.0
"""Seconds within which an answer shows that we may receive again."""
REFUSED_PULL = b'{"batch":1,"expires":1000000000,"idle_heartbeat":1000000000}'
"""A heartbeat must be half of the pull's time at most: refused before anything is delivered."""
_VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)

_ACKS = ("$JS.ACK.{where}.", "$JS.ACK.*.*.{where}.")
"""How the subjects of acks begin, by the version of the server's: the second has domain and account there."""


class Permissions:
    """What the server refuses one worker now. Of the loop thread, but ``trouble`` may be read by any."""

    def __init__(self, settings: NatsConfig, config: StreamConfig) -> None:
        where = f"{config.stream}.{config.durable}"
        self.api = settings.api
        """What the subjects of JetStream's API begin with. Those of acks begin with $JS.ACK wherever that is."""
        self._readers = f"{self.api}.CONSUMER.MSG.NEXT.{config.stream}."
        self._inbox = f"subscribe to {settings.inbox_prefix}.>"
        self._place, self._where = where, f".{where}.".lower()
        self._extra = {"stream": config.name}
        self.pull = f"{self.api}.CONSUMER.MSG.NEXT.{where}"
        """Where a pull is asked for."""
        self._acks = _ACKS[0].format(where=where)
        self._harmless = {
            f"{self.api}.STREAM.INFO.{config.stream}": b"",
            f"{self.api}.STREAM.MSG.GET.{config.stream}": b'{"seq":0}',  # there is no such message
            f"{self.api}.CONSUMER.INFO.{where}": b"",
            self.pull: REFUSED_PULL,
        }
        """What a worker asks for, and how to do that without any effect."""
        self._needs = {
            self._inbox,
            f"publish to {self._acks}>",
            *(f"publish to {subject}" for subject in self._harmless),
        }
        self._refused: dict[str, int] = {}
        self._pending: set[tuple[str, asyncio.Future[None]]] = set()
        self.trouble = ""
        """What is refused, and the remedy; empty if nothing is."""

    @property
    def complete(self) -> bool:
        """Whether nothing is refused that we know of."""
        return not self._refused

    @property
    def may_pull(self) -> bool:
        """Whether it makes sense to pull: what cannot be acknowledged would only come again and again."""
        return f"publish to {self.pull}" not in self._refused and self.may_acknowledge

    @property
    def may_acknowledge(self) -> bool:
        """Whether neither acks nor the way of their confirmation are refused."""
        return f"publish to {self._acks}>" not in self._refused and self.may_receive

    @property
    def may_receive(self) -> bool:
        """Whether the server sends us what we subscribed to. If not, only subscribing again brings that back."""
        return self._inbox not in self._refused

    async def asked(self, subject: str, answer: Coroutine[Any, Any, T]) -> T:
        """The answer to a request; raises ForbiddenError as soon as the server refuses it, or the way of the answer."""
        refusal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (subject, refusal)
        request = asyncio.ensure_future(answer)
        self._pending.add(waiting)
        try:
            # An answer may come again any time; until then it is not worth to wait for it for long.
            patience = None if self.may_receive else PROOF
            await asyncio.wait((request, refusal), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not request.done():
                raise ForbiddenError(_text([self._need("publish", subject) if self.may_receive else self._inbox]))
            found = request.result()
        finally:
            self._pending.discard(waiting)
            request.cancel()
            refusal.cancel()
        self._permitted(self._inbox)
        self._permitted(self._need("publish", subject))
        return found

    def note(self, error: str) -> bool:
        """Takes note of what the server says of a violation (in lower case, from nats-py); False of anything else.

        Thousands of acks may be refused one by one: this is told once.
        """
        violation = _VIOLATION.search(error)
        if violation is None:
            return False
        verb, subject = violation.groups()
        if self._where in subject.lower() and subject.lower().startswith("$js.ack."):
            self._follow(subject.lower())
        need = self._need(verb, subject)
        if need in self._needs:
            self._refused[need] = self._refused.get(need, 0) + 1
            if self._refused[need] == 1:
                log.error("%s", _text([need]), extra=self._extra)
                self._tell()
        awaited = [
            refusal
            for name, refusal in self._pending
            if (verb == "subscription" or name.lower() == subject.lower()) and not refusal.done()
        ]
        for refusal in awaited:
            refusal.set_result(None)
        return need in self._needs or bool(awaited)

    async def probe(self, publish: Send, request: Send, pulls: bool = True) -> None:
        """Asks for everything once, without any effect. Afterwards ``trouble`` tells what is not permitted.

        Without ``pulls`` not for what only those need who pull from the durable.
        """
        acks = f"publish to {self._acks}>"
        before = self._refused.get(acks, 0)
        # Nobody answers this, but the server speaks of violations in the order of what it was sent.
        if pulls:
            await publish(f"{self._acks}0.0.0.0.0".replace("*", "_"), b"+WPI")
        asked = (each for each in self._harmless.items() if pulls or each[0] != self.pull)
        answers = await asyncio.gather(*(request(subject, body) for subject, body in asked), return_exceptions=True)
        if before and self._refused[acks] == before and any(not isinstance(each, Exception) for each in answers):
            self._permitted(acks)

    def _follow(self, subject: str) -> None:
        """Where acks go, by one that was refused: a server of the second version has domain and account before it."""
        acks = _ACKS[not subject.startswith(f"$js.ack{self._where}")].format(where=self._place)
        if acks != self._acks:
            self._refused.pop(f"publish to {self._acks}>", None)
            self._acks = acks
            self._needs.add(f"publish to {acks}>")

    def _need(self, verb: str, subject: str) -> str:
        """What has to be permitted, in words."""
        if verb == "subscription":
            return self._inbox
        if subject.lower().startswith("$js.ack.") and self._where in subject.lower():
            return f"publish to {self._acks}>"
        known = next((each for each in self._harmless if each.lower() == subject.lower()), subject)
        if known == subject and subject.startswith(self._readers) and subject != self.pull:
            known = f"{self._readers}*"  # a consumer beside the durable, whose name is another one each time
        return f"publish to {known}"

    def _permitted(self, need: str) -> None:
        refusals = self._refused.pop(need, 0)
        if refusals:
            log.info("NATS permits again to %s, after %d refusals", need, refusals, extra=self._extra)
            self._tell()

    def _tell(self) -> None:
        self.trouble = _text([*self._refused]) if self._refused else ""


def _text(needs: list[str]) -> str:
    return (
        f"NATS forbids to {', to '.join(sorted(needs))}: add it to the permissions of the user that eventwriter "
        "connects as (docs/security.md lists all that is needed)"
    )
