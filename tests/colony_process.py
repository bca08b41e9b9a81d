"""A running colony in a process of its own, to test the command: `python -m tests.colony_process FOLDER`.

It has all the services and two workers (`unix1` for `cli`, `py1` for `python`), writes the contexts `owner`
(with the owner's keys), `ann` and `bob` (users) into COLONIES_CONFIG_DIR, prints `ready`, and ends when its
standard input does.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from colonies_cli import logging
from colonies_projections import Projector
from colonies_projections.webhooks import Webhooks
from colonies_workers.unix import UnixWorker

import colonies
from colonies import contexts, founding
from tests.harness import RunningColony, running_colony

python = colonies.Worker("python", concurrency=4)


@python.function
def double(n: int) -> int:
    return 2 * n


@python.function
def repeat(text: str, times: int) -> str:
    return text * times


@python.function
def chat(lines: int) -> str:
    for number in range(lines):
        colonies.current().log(f"line {number}\n")
    return "said"


@python.function
def loud(number: int) -> list[int]:
    for n in range(number):
        colonies.current().log(f"printed {n}\n", stream="stdout")
    return list(range(number))


async def serve(folder: Path) -> None:
    async with running_colony(folder) as colony:
        projector = Projector(await colony.session("projector", "observer"), folder / "views.sqlite")
        await colony._start(projector.run(), projector.ready)
        sends = await colony.session("webhooks", "observer")
        webhooks = Webhooks(sends, folder / "webhooks.sqlite", delays_s=(0.1, 0.1))
        await colony._start(webhooks.run(), webhooks.ready)
        keyring = colony.keyring
        watcher = await colony.session("operator", "observer")
        operator = founding.Operator(watcher, keyring.operator, colony.url)
        await colony._start(operator.run(), _set())
        await colony.work(
            UnixWorker(folder=folder / "work", show=False, concurrency=4, backoff_s=0.1), "unix1"
        )
        await colony.work(python, "py1")
        await write_contexts(colony)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def write_contexts(colony: RunningColony) -> None:
    keys, members = str(colony.folder / "keys" / "owner"), str(colony.folder)
    owner = str(colony.folder / "owner.creds")
    contexts.save(contexts.Context("owner", colony.url, owner, keys, members))
    for name in ("ann", "bob"):
        contexts.save(contexts.Context(name, colony.url, str(await colony.credential(name, "user"))))
    contexts.use("ann")


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


if __name__ == "__main__":
    logging.configure("info")
    asyncio.run(serve(Path(sys.argv[1])))
