"""A client as a program of its own, which packs arguments for a generator one after the other.

    python tests/packing_program.py URL CREDENTIAL GENERATOR FILE

Each argument is `[MEMBER, NUMBER]`. When the file is there it ends, and prints how many it packed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from colonies.client import Client
from colonies.connection import open_session

PAUSE_S = 0.05  # leaves something of the machine to the others


async def main() -> None:
    url, creds, generator, file = sys.argv[1:5]
    client = Client(await open_session(url=url, creds=creds))
    number, size = 0, 1
    while not Path(file).exists():
        await client.pack(generator, *([client.name, n] for n in range(number, number + size)))
        number, size = number + size, size % 3 + 1
        await asyncio.sleep(PAUSE_S)
    print(number, flush=True)
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())
