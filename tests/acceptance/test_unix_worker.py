"""The Unix worker on a real colony: shell commands in, outputs and errors out, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from colonies_workers.unix import UnixWorker

import colonies
from colonies.errors import ProcessFailed
from colonies.logs import read_logs
from tests.harness import RunningColony, running_colony, until

CLI = {"runtimetype": "cli"}


@pytest.fixture
async def colony(tmp_path: Path) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path) as colony:
        yield colony


@pytest.fixture
async def client(colony: RunningColony, tmp_path: Path) -> colonies.Client:
    await colony.work(UnixWorker(folder=tmp_path / "work", show=False, concurrency=2), "u1")
    return await colony.client()


async def run(client: colonies.Client, func: str, *args: Any, **fields: Any) -> Any:
    handle = await client.submit({"func": func, "args": list(args), "conditions": CLI, **fields})
    return await handle.result(60)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in ("Z", "X")
    return False


async def test_standard_output_without_its_last_newline_is_the_output(client: colonies.Client) -> None:
    assert await run(client, "echo sayhello") == "sayhello"


async def test_an_argument_is_never_syntax(client: colonies.Client) -> None:
    assert (
        await run(client, "printf '<%s>'", "a b", "$(touch /tmp/x); echo", "'")
        == "<a b><$(touch /tmp/x); echo><'>"
    )


async def test_what_is_written_to_colonies_output_is_the_output(client: colonies.Client) -> None:
    assert await run(client, """echo noise; echo '{"loss": 0.5}' > "$COLONIES_OUTPUT" """) == {"loss": 0.5}


async def test_the_environment_names_process_attempt_and_inputs(client: colonies.Client) -> None:
    handle = await client.submit(
        {
            "func": 'echo "$COLONIES_PROCESS $COLONIES_ATTEMPT $SEED $(cat $COLONIES_INPUTS)"',
            "env": {"SEED": "7"},
            "conditions": CLI,
        }
    )
    assert await handle.result(60) == f"{handle.id} 1 7 {{}}"


async def test_a_failing_command_says_its_exit_code_and_the_end_of_its_stderr(
    client: colonies.Client,
) -> None:
    with pytest.raises(ProcessFailed, match=r"exit code 3(?s:.)*no such model"):
        await run(client, "echo no such model >&2; exit 3")


async def test_output_and_errors_are_in_the_processes_log(client: colonies.Client) -> None:
    handle = await client.submit({"func": "echo out; echo err >&2", "conditions": CLI})
    await handle.result(60)
    entries = await read_logs(client.session, handle.id)
    assert {(entry.stream, entry.text) for entry in entries} == {("stdout", "out\n"), ("stderr", "err\n")}
    event = [seen async for seen in handle.events()][-1].record
    assert event is not None
    assert event.event.logs.count == len(entries)  # type: ignore[union-attr]


async def test_cancelling_kills_the_whole_group(client: colonies.Client, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    func = f"sleep 600 & echo $! > {pids}.new; echo $$ >> {pids}.new; mv {pids}.new {pids}; wait"
    handle = await client.submit({"func": func, "conditions": CLI})
    await until(pids.exists, "the command runs")
    running = [int(pid) for pid in pids.read_text().split()]
    assert all(map(alive, running))
    await handle.cancel()
    await until(lambda: not any(map(alive, running)), "the group is gone")


async def test_a_command_over_its_maxexectime_is_killed(client: colonies.Client, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(ProcessFailed, match="maxexectime"):
        await run(client, f"echo $$ > {pids}; sleep 600", maxexectime=1)
    assert not alive(int(pids.read_text()))


async def test_a_killed_worker_leaves_nothing_of_its_commands(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    credential = await colony.credential("u2", "worker")
    command = Path(sys.executable).with_name("colonies")
    worker = await asyncio.create_subprocess_exec(
        *(
            str(command),
            "worker",
            "start",
            "--runtimetype",
            "cli",
            "--url",
            colony.url,
            "--creds",
            str(credential),
        ),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        pids = tmp_path / "pids"
        func = f"sleep 600 & echo $! > {pids}.new; echo $$ >> {pids}.new; mv {pids}.new {pids}; wait"
        await client.submit({"func": func, "conditions": CLI})
        await until(pids.exists, "the command runs")
        running = [int(pid) for pid in pids.read_text().split()]
        os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: not any(map(alive, running)), "the group is gone")
    finally:
        with contextlib.suppress(ProcessLookupError):
            worker.kill()
        await worker.wait()
