"""A projector as a program of its own, to be killed by tests.

    python tests/projections/projector_program.py URL CREDENTIAL FILE

Prints `ready` when its views have caught up.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from colonies_projections import Projector

from colonies.connection import open_session

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.projections.helpers import ALL


async def main() -> None:
    session = await open_session(url=sys.argv[1], creds=sys.argv[2])
    projector = Projector(session, Path(sys.argv[3]), ALL)
    async with asyncio.TaskGroup() as group:
        group.create_task(projector.run())
        await projector.ready.wait()
        print("ready", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
