"""What a client does with a workflow: submits it, signals and cancels it, waits for it.

After a crash it begins anew where it was."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from colonies.client import Client
from colonies.errors import Conflict, Unavailable
from colonies.flows import WorkflowHandle
from colonies.ledger import Stored
from tests.simulator.flowwitness import SeenFlow
from tests.simulator.link import Host

if TYPE_CHECKING:
    from tests.simulator.world import World

AGAIN_S = 0.3


class FlowClient:
    """One workflow in the hands of one client."""

    def __init__(self, world: World, host: Host, client: Client, seen: SeenFlow) -> None:
        self._world = world
        self._host = host
        self._client = client
        self._seen = seen
        self._witness = world.witness.flows

    async def run(self) -> None:
        seen, flow = self._seen, self._seen.flow
        await self._world.until(flow.submit_at)
        while seen.id is None:
            self._note("submits workflow", flow.number)
            seen.tries += 1
            try:
                handle = await self._client.submit_workflow(flow.spec, key=flow.key)
            except Unavailable:
                if flow.key is None:  # it may be there or not: nobody promised anything
                    self._settle()
                    return
                await asyncio.sleep(AGAIN_S)
                continue
            self._witness.acknowledged(seen, handle.id)
        await self._see_to(WorkflowHandle(self._client, seen.id))

    async def _see_to(self, handle: WorkflowHandle) -> None:
        flow = self._seen.flow
        tasks = [
            asyncio.create_task(self._signal(handle, number))
            for number in range(len(flow.signals))
            if number not in self._seen.sent
        ]
        if flow.cancel_after is not None and not self._seen.cancelled:
            tasks.append(asyncio.create_task(self._cancel(handle)))
        await self._wait(handle)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._settle()

    async def _wait(self, handle: WorkflowHandle) -> None:
        while True:
            try:
                now = await handle.wait()
                self._note("believes", handle.id, now.state)
                began = {node.label: node.state for node in now.nodes}
                self._witness.believed(handle.id, now.state, began)
                if now.state == "successful":
                    self._witness.believed_output(handle.id, await handle.result())
                await self._look_afresh(handle.id)
                return
            except Unavailable:
                await asyncio.sleep(AGAIN_S)

    async def _look_afresh(self, id: str) -> None:
        """Who reads it for the first time comes to the same."""
        session, ledger = await self._world.session(self._host)
        try:
            now = await WorkflowHandle(Client(session), id).get()
            self._witness.believed(id, now.state, {node.label: node.state for node in now.nodes})
        finally:
            await session.close()
            await ledger.close()

    async def _signal(self, handle: WorkflowHandle, number: int) -> None:
        name, after_s = self._seen.flow.signals[number]
        await asyncio.sleep(after_s)
        while True:
            self._note("signals", handle.id, name)
            try:
                await handle.signal(name, number)
            except Unavailable:
                await asyncio.sleep(AGAIN_S)
                continue
            except Conflict:
                self._witness.refused(handle.id)
                return
            self._witness.signal_acknowledged(self._seen, handle.id, number)
            return

    async def _hear(self, count: int, limit_s: float) -> None:
        """Until so many events were heard, or so many seconds are over."""
        heard: list[Stored] = []
        enough = asyncio.Event()

        def hear(stored: Stored) -> None:
            heard.append(stored)
            if len(heard) >= count:
                enough.set()

        feeds = [
            await self._client.ledger.subscribe(pattern, hear)
            for pattern in ("feed.process.*.*.*", "feed.process.*.queued.*.*")
        ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await enough.wait()
        for feed in feeds:
            await feed.close()

    async def _cancel(self, handle: WorkflowHandle) -> None:
        await self._hear(self._seen.flow.cancel_heard, self._seen.flow.cancel_after or 0.0)
        while True:
            self._note("cancels workflow", handle.id)
            try:
                await handle.cancel("enough")
            except Unavailable:
                await asyncio.sleep(AGAIN_S)
                continue
            except Conflict:  # by itself, before it crashed, say; or it has ended
                self._witness.refused(handle.id)
                return
            self._witness.cancel_acknowledged(self._seen, handle.id)
            return

    def _settle(self) -> None:
        self._seen.settled = True
        self._world.witness._perhaps_done()

    def _note(self, what: str, *about: object) -> None:
        self._world.note(self._host.name, what, *about)
