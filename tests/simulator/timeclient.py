"""What a client does with a cron or generator, by its script. After a crash it begins anew where it was."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from colonies.client import Client
from colonies.errors import Conflict, NotFound, Unavailable
from tests.simulator.link import Host
from tests.simulator.timeplan import Deed
from tests.simulator.timewitness import Acts

if TYPE_CHECKING:
    from tests.simulator.world import World

AGAIN_S = 0.3


class TimeClient:
    """One script in the hands of one client."""

    def __init__(self, world: World, host: Host, client: Client, acts: Acts) -> None:
        self._world = world
        self._host = host
        self._client = client
        self._acts = acts
        self._script = acts.script
        self._witness = world.witness.times

    async def run(self) -> None:
        acts = self._acts
        while acts.step < len(self._script.deeds):
            deed = self._script.deeds[acts.step]
            await self._world.until(deed.at)
            if deed.what == "pack":
                acts.step += 1  # whatever becomes of it: who packs again would pack twice
                await self._pack(deed)
            elif deed.what == "run":
                acts.step += 1
                await self._run_now()
            else:
                await self._until_said(deed)
                acts.step += 1
        acts.settled = True
        self._world.witness._perhaps_done()

    async def _until_said(self, deed: Deed) -> None:
        """It is said, now or before a crash."""
        while True:
            self._note(deed.what)
            try:
                await self._say(deed)
            except Unavailable:
                await asyncio.sleep(AGAIN_S)
                continue
            except (Conflict, NotFound):  # it was so already
                pass
            self._witness.said(self._script, deed)
            return

    async def _say(self, deed: Deed) -> None:
        client, script = self._client, self._script
        match script.kind, deed.what:
            case "cron", "add":
                await client.add_cron(script.name, script.spec, **script.when)
            case "cron", "pause":
                await client.cron(script.name).pause()
            case "cron", "resume":
                await client.cron(script.name).resume()
            case "cron", "remove":
                await client.cron(script.name).remove()
            case "generator", "add":
                await client.add_generator(script.name, script.spec, **script.when)
            case "generator", "remove":
                await client.remove_generator(script.name)
            case "colony", "pause":
                await client.pause_colony()
            case "colony", "resume":
                await client.resume_colony()
            case "queue", "pause":
                await client.pause_queue(script.name)
            case "queue", "resume":
                await client.resume_queue(script.name)
            case "worker", "pause":
                await client.drain_worker(script.name)
            case "worker", "resume":
                await client.resume_worker(script.name)
            case other:
                raise AssertionError(other)

    async def _run_now(self) -> None:
        self._note("run")
        try:
            handle = await self._client.cron(self._script.name).run()
        except Unavailable:  # it may be there or not
            return
        self._witness.run_acknowledged(handle.id)

    async def _pack(self, deed: Deed) -> None:
        """Once it is there; it may be gone, too."""
        while True:
            self._note("pack", *deed.args)
            try:
                await self._client.pack(self._script.name, *deed.args)
            except NotFound:
                if self._witness.is_over(self._script.name):
                    return
                await asyncio.sleep(AGAIN_S)
                continue
            except Unavailable:  # it may be there or not
                return
            self._witness.packed(self._script.name, deed.args)
            return

    def _note(self, what: str, *about: object) -> None:
        self._world.note(self._host.name, f"{what}s {self._script.kind}", self._script.name, *about)
