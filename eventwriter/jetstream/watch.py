"""Looks at the consumer every few seconds: how far behind it is, for people, and what somebody changed."""

from __future__ import annotations

import asyncio
from time import monotonic

import nats.errors

from eventwriter.errors import UnavailableError
from eventwriter.jetstream.api import Api
from eventwriter.jetstream.binding import Binding
from eventwriter.jetstream.claims import Claims
from eventwriter.jetstream.connection import Client
from eventwriter.jetstream.consumer import ConsumerInfo
from eventwriter.jetstream.permissions import Permissions
from eventwriter.jetstream.progress import Progress
from eventwriter.jetstream.puller import Puller

SAMPLE = 3.0
"""Seconds between two looks."""
SOON = 1.0
"""Seconds until the next one when the consumer could not be asked."""


class Watch:
    """Of one worker. Of the loop thread, but ``latest`` may be read by any."""

    def __init__(
        self,
        client: Client,
        api: Api,
        binding: Binding,
        puller: Puller,
        permissions: Permissions,
        progress: Progress,
        claims: Claims,
    ) -> None:
        self._client = client
        self._api = api
        self._binding = binding
        self._puller = puller
        self._permissions = permissions
        self._progress = progress
        self._claims = claims
        self.latest: ConsumerInfo | None = None
        """What the consumer said a few seconds ago, for people; None while that is not known."""

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            await asyncio.sleep(await self.look())

    async def look(self) -> float:
        """Looks once; seconds until the next look. Raises the error to end with if only binding anew helps."""
        info, silent, full = None, "", self._claims.full
        try:
            if self._client.is_connected:
                if not self._permissions.complete:
                    await self._ask_again()
                info = await self._binding.consumer_info()
        except (UnavailableError, nats.errors.Error) as error:
            silent = str(error) or type(error).__name__
        if info is not None:
            if (edited := self._binding.edited(info)) is not None:
                raise edited
            self._claims.seen()
            if full:
                self._puller.wake.set()
        eager = self._puller.eager and not self._puller.standby
        self._progress.look(
            info, monotonic(), connected=self._client.is_connected, eager=eager, silent=silent, full=full
        )
        self._puller.stuck(stands_still(self.latest, info))
        self.latest = info
        return SAMPLE if info is not None else SOON

    async def _ask_again(self) -> None:
        """For what was refused. What we subscribed to before it was allowed stays dead: only a new connection helps."""
        if not self._permissions.may_receive:
            await self._client.force_reconnect()
            while not self._client.is_connected:
                await asyncio.sleep(0.1)
        await self._api.probe()
        if self._permissions.may_pull:
            self._puller.wake.set()


def stands_still(before: ConsumerInfo | None, now: ConsumerInfo | None) -> bool:
    """Whether between two looks nothing was done, though there was something to do."""
    if before is None or now is None or before.ack_floor != now.ack_floor:
        return False
    return 0 < before.pending + before.ack_pending <= now.pending + now.ack_pending
