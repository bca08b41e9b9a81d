"""An orchestrator as a program of its own, to be killed by tests.

    python tests/orchestrator_program.py URL CREDENTIAL

Prints `ready TIME` (ledger time, ns) when it has caught up with the ledger.
"""

from __future__ import annotations

import asyncio
import sys

from colonies.connection import open_session
from colonies.jetstream import JetStreamLedger
from colonies.orchestrator import Orchestrator


async def main() -> None:
    session = await open_session(url=sys.argv[1], creds=sys.argv[2])
    assert isinstance(session.ledger, JetStreamLedger)
    orchestrator = Orchestrator(session, session.ledger.machinery())
    running = asyncio.create_task(orchestrator.run())
    ready = asyncio.create_task(orchestrator.ready.wait())
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    print(f"ready {await session.ledger.now()}", flush=True)
    await running


if __name__ == "__main__":
    asyncio.run(main())
