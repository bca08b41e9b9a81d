"""The service in a process of its own, to be killed: `python service_program.py URL CREDS FILE DELAYS`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from colonies_projections.webhooks import Webhooks

from colonies.connection import session_of
from colonies.creds import Credential


async def main(url: str, creds: str, path: str, delays: str) -> None:
    delays_s = [float(word) for word in delays.split(",")]
    async with session_of(url, Credential.read(Path(creds))) as session:
        service = Webhooks(session, Path(path), delays_s=delays_s)
        async with asyncio.TaskGroup() as group:
            group.create_task(service.run())
            await service.ready.wait()
            print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
