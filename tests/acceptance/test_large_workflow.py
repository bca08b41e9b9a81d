"""A workflow that is larger than one event goes to the ledger in parts, and is whole or not there: whoever is
killed between two parts, and whoever tries again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from colonies_projections import Projector

import colonies
from colonies import subjects
from colonies.client import Client
from colonies.errors import Invalid, NotFound, Unavailable
from colonies.jetstream import JetStreamLedger
from colonies.ledger import Stored
from colonies.verify import verify_ledger
from tests.harness import RunningColony, running_colony, until

COLONIES = Path(sys.executable).with_name("colonies")
LIMIT_S = 90.0
PADDING = "x" * 60_000
PARTS = 16  # of what is killed from outside: it needs a moment for each
worker = colonies.Worker("python", concurrency=8)


@worker.function
async def size(text: str) -> int:
    return len(text)


def large(parts: int, padding: str = PADDING) -> list[dict[str, Any]]:
    """Nodes for so many parts, of ten each, and a few more; the last one waits for all others."""
    python = {"runtimetype": "python"}
    nodes = [
        {"name": f"n{number}", "func": "size", "args": [padding], "conditions": python}
        for number in range(10 * parts)
    ]
    names = [node["name"] for node in nodes]
    return [
        *nodes,
        {"name": "z", "func": "size", "args": ["end"], "conditions": python, "dependencies": names},
    ]


class Heard:
    """The events of workflows as the feed brings them. `at` is called at the part of that number.

    On a client's own connection a part is heard before its acknowledgement, so before the next one is sent.
    """

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.submitted: list[str] = []
        self.at: dict[int, Callable[[], None]] = {}

    @classmethod
    async def of(cls, client: Client) -> Heard:
        heard = cls()
        await client.ledger.subscribe("feed.workflow.>", heard._hear)
        return heard

    def _hear(self, stored: Stored) -> None:
        subject = subjects.parse(stored.subject.replace("feed.", "ledger.", 1))
        assert subject is not None
        if subject.event == "submitted":
            self.submitted.append(subject.entity)
        elif subject.event == "part":
            self.parts.append(subject.entity)
            self.at.get(len(self.parts), lambda: None)()


@asynccontextmanager
async def watched(folder: Path, **options: Any) -> AsyncIterator[tuple[RunningColony, Client, Heard]]:
    """A colony with a worker, a client, and what this hears; the ledger is clean in the end."""
    async with running_colony(folder, **options) as colony:
        await colony.work(worker)
        client = await colony.client()
        yield colony, client, await Heard.of(client)
        assert isinstance(colony.owner.ledger, JetStreamLedger)
        assert (await verify_ledger(colony.owner.ledger)).findings == []


async def project(colony: RunningColony) -> JetStreamLedger:
    """Start a projector; returns a ledger to ask it by."""
    projector = Projector(await colony.session("projector", "observer"), colony.folder / "views.sqlite")
    await colony._start(projector.run(), projector.ready)
    assert isinstance(colony.owner.ledger, JetStreamLedger)
    return colony.owner.ledger


async def listed(ledger: JetStreamLedger) -> list[tuple[str, str]]:
    """The workflows that a projector knows, with their states, once it has caught up."""
    last = await ledger.last_sequence()
    async with asyncio.timeout(LIMIT_S):
        while (answer := await ledger.ask_service("query.workflows", {}, wait_s=10))["position"] < last:
            await asyncio.sleep(0.05)
    return [(item["id"], item["state"]) for item in answer["items"]]


async def is_not_there(client: Client, heard: Heard, ledger: JetStreamLedger) -> None:
    (id,) = set(heard.parts)
    assert heard.submitted == []
    with pytest.raises(NotFound, match=f"there is no workflow {id}"):
        await client.workflow(id).get()
    assert await listed(ledger) == []


# --- the client dies --------------------------------------------------------------------------------


async def submitting(colony: RunningColony, *arguments: str) -> asyncio.subprocess.Process:
    """`colonies workflow submit` of the file `large.json`."""
    process = await asyncio.create_subprocess_exec(
        *(str(COLONIES), "workflow", "submit", "--spec", str(colony.folder / "large.json"), *arguments),
        *("--url", colony.url, "--creds", str(await colony.credential("ann", "user"))),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )

    async def end() -> None:
        if process.returncode is None:
            process.kill()
        await process.wait()

    colony.stack.push_async_callback(end)
    return process


@pytest.mark.parametrize(("death", "part"), [(signal.SIGKILL, 1), (signal.SIGKILL, 8), (signal.SIGINT, 4)])
@pytest.mark.timeout(240)
async def test_a_command_that_dies_between_parts_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, death: signal.Signals, part: int
) -> None:
    async with watched(tmp_path) as (colony, client, heard):
        (tmp_path / "large.json").write_text(json.dumps(large(PARTS)))
        ledger = await project(colony)
        process = await submitting(colony, "--key", "k")
        # Held still as soon as it is seen to be on its way, so that it does not come to its end meanwhile.
        heard.at[part] = lambda: os.kill(process.pid, signal.SIGSTOP)
        await until(lambda: len(heard.parts) >= part, "the parts are on their way", LIMIT_S)
        process.send_signal(death)
        process.send_signal(signal.SIGCONT)
        out, err = await process.communicate()
        assert part <= len(heard.parts) < PARTS
        assert out == b""
        if death == signal.SIGINT:
            assert (process.returncode, err) == (130, b"colonies: interrupted\n")
        else:
            assert process.returncode == -signal.SIGKILL
        await is_not_there(client, heard, ledger)

        again = await submitting(colony, "--key", "k", "--wait", "-o", "name")
        out, err = await again.communicate()
        assert again.returncode == 0, err
        (id,) = set(heard.submitted)
        assert out.decode().split() == [id]
        assert set(heard.parts) == {id}
        now = await client.workflow(id).get()
        assert [node.state for node in now.nodes] == ["successful"] * (10 * PARTS + 1)
        assert await listed(ledger) == [(id, "successful")]


# --- the broker dies --------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [1, 3, 5])
@pytest.mark.timeout(180)
async def test_a_broker_that_comes_back_costs_the_client_a_moment(tmp_path: Path, part: int) -> None:
    async with watched(tmp_path) as (colony, client, heard):
        heard.at[part] = lambda: os.kill(colony.server.pid, signal.SIGKILL)
        submitting = asyncio.create_task(client.submit_workflow(large(5), key="k"))
        await until(lambda: len(heard.parts) >= part, "a part is heard, and the broker dies")
        assert not submitting.done()
        await colony.kill_broker()
        await colony.restart_broker()

        handle = await submitting
        assert (await handle.wait(LIMIT_S)).state == "successful"
        again = await client.submit_workflow(large(5), key="k")
        assert again.id == handle.id
        assert (await client.workflow(handle.id).get()).state == "successful"


@pytest.mark.parametrize("part", [1, 5])
@pytest.mark.timeout(180)
async def test_a_broker_that_stays_away_is_said_and_a_repeat_is_one_workflow(
    tmp_path: Path, part: int
) -> None:
    async with watched(tmp_path) as (colony, client, heard):
        heard.at[part] = lambda: os.kill(colony.server.pid, signal.SIGKILL)
        submitting = asyncio.create_task(client.submit_workflow(large(5), key="k"))
        await until(lambda: len(heard.parts) >= part, "a part is heard, and the broker dies")
        assert not submitting.done()
        await colony.kill_broker()
        with pytest.raises(
            Unavailable, match=r"is not submitted: |whether what was sent is stored is not known"
        ):
            await submitting
        await colony.restart_broker()

        async with asyncio.timeout(LIMIT_S):
            handle = await client.submit_workflow(large(5), key="k")
        assert (await handle.wait(LIMIT_S)).state == "successful"
        assert len(await parts_of(colony, handle.id)) == 5, "a part was put twice"


async def parts_of(colony: RunningColony, id: str) -> list[str]:
    messages = await colony.owner.ledger.read(subjects.guard_of("workflow", id))
    return [stored.subject for stored in messages if ".part." in stored.subject]


# --- trying again -----------------------------------------------------------------------------------


@pytest.mark.timeout(180)
async def test_two_clients_with_one_key_put_one_workflow_together(tmp_path: Path) -> None:
    async with watched(tmp_path) as (colony, client, _):
        await client.submit(large(1)[0])  # so that its queue is known, and they all begin at once
        clients = [client, await colony.client()]
        handles = await asyncio.gather(*(one.submit_workflow(large(6), key="k") for one in clients * 2))
        assert len({handle.id for handle in handles}) == 1
        assert (await handles[0].wait(LIMIT_S)).state == "successful"
        assert len(await parts_of(colony, handles[0].id)) == 6


@pytest.mark.timeout(180)
async def test_what_is_left_of_an_earlier_try_does_not_count_twice(tmp_path: Path) -> None:
    """Most parts of a workflow of nearly as many nodes as one may have, and then all of them once more."""
    async with watched(tmp_path, orchestrate=False) as (_, client, heard):
        nodes = large(900, padding="x" * 300)
        cut: asyncio.Task[Any] = asyncio.create_task(client.submit_workflow(nodes, key="k"))
        heard.at[4] = cut.cancel
        with pytest.raises(asyncio.CancelledError):
            await cut
        assert heard.submitted == []
        handle = await client.submit_workflow(nodes, key="k")
        assert len((await handle.get()).nodes) == 9_001


@pytest.mark.timeout(180)
async def test_a_key_that_is_spoilt_by_another_workflow_is_said(tmp_path: Path) -> None:
    async with watched(tmp_path, orchestrate=False) as (_, client, heard):
        cut: asyncio.Task[Any] = asyncio.create_task(
            client.submit_workflow(large(900, padding="x" * 300), key="k")
        )
        heard.at[4] = cut.cancel
        with pytest.raises(asyncio.CancelledError):
            await cut
        other = large(900, padding="y" * 300)
        with pytest.raises(Invalid, match=r"the key 'k' cannot be used for this workflow .* take a new key"):
            await client.submit_workflow(other, key="k")
        handle = await client.submit_workflow(other, key="another")
        assert len((await handle.get()).nodes) == 9_001
