"""A recorded attempt, run again: it gets what it got, gives what it gave, and leaves no trace."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

import colonies
from colonies import Fail, Later, Worker
from colonies.client import Client
from colonies.core.process import Process
from colonies.core.workflow import node_id
from colonies.errors import Invalid, NotFound
from colonies.replaying import Replayed, _without_place, replay
from tests.harness import RunningColony, running_colony

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHOWN: list[str] = []


def shop(*, changed: bool = False, url: str = "", creds: str = "") -> Worker:
    """The functions that the processes here are of; and as somebody changed them later."""
    worker = Worker("python", concurrency=8, backoff_s=0.05)

    @worker.function
    def double(n: int) -> int:
        colonies.current().log(f"doubling {n}")
        logging.getLogger("shop").warning("said by logging")
        return 2 * n + changed

    @worker.function
    def rows(n: int) -> list[dict[str, int]]:
        found = [{"n": i} for i in range(n)]
        if changed:
            found[n // 2]["n"] = -1
        return found

    @worker.function
    async def total(values: list[Any]) -> tuple[int, ...]:
        await asyncio.sleep(0)
        return (*[len(value) if isinstance(value, list) else value for value in values], int(changed))

    @worker.function
    def breaks(how: str) -> int:
        if how == "final":
            raise Fail("never" if changed else "no")
        if how == "later" and colonies.current().n == 1:
            raise Later(0.05 if not changed else 0.06)
        if how == "error" and not changed:
            raise ValueError("broken")
        return 1

    @worker.function
    def flaky() -> int:
        if colonies.current().n < 3:
            raise ValueError(f"attempt {colonies.current().n}")
        return colonies.current().n

    @worker.function
    async def asks() -> list[Any]:
        first = await colonies.signal("approve")
        return [first.data, (await colonies.signal("approve")).by]

    @worker.function
    async def asks_soon() -> Any:
        return (await colonies.signal("go", timeout_s=0.1)).data

    @worker.function
    def asks_in_a_thread() -> Any:
        return colonies.signal("approve").wait().data

    @worker.function
    def adds(parts: list[str]) -> int:
        here = colonies.current()
        for part in parts:
            here.add(double.call(len(part) + changed), name=part)
        return len(parts)

    @worker.function
    def submits(n: int) -> int:
        with colonies.connect(url=url, creds=creds) as client:
            return client.submit(double.call(n)).result()

    @worker.function
    def slow(s: float) -> None:
        time.sleep(0.0 if changed else s)

    return worker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def colony(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningColony]:
    async with running_colony(tmp_path_factory.mktemp("replay")) as colony:
        creds = await colony.credential("bob", "user")
        await colony.work(shop(url=colony.url, creds=str(creds)))
        yield colony


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(colony: RunningColony) -> Client:
    return await colony.client("ann")


async def ended(client: Client, func: str, *args: Any, **fields: Any) -> Process:
    handle = await client.submit(
        {"func": func, "args": list(args), "conditions": {"runtimetype": "python"}, **fields}
    )
    return await handle.wait(60)


async def again(client: Client, id: str, worker: Worker, n: int | None = None) -> Replayed:
    """Run it again, and see that nothing was written meanwhile."""
    SHOWN.clear()
    ledger = client.session.ledger
    before = await ledger.last_sequence()
    found = await replay(client.session, id, worker, n, SHOWN.append)
    assert await ledger.last_sequence() == before
    assert await ledger.emitted(f"log.*.{client.session.name}") == []
    return found


def told(found: Replayed) -> tuple[str, Any, Any] | None:
    difference = found.difference
    assert found.same is (difference is None)
    return None if difference is None else (difference.path, difference.expected, difference.got)


@pytest.mark.parametrize(
    ("func", "args", "difference"),
    [
        ("double", [21], ("output", 42, 43)),
        ("rows", [30_000], ("output[15000].n", 15_000, -1)),
        ("total", [[1, [2, 3]]], ("output[2]", 0, 1)),
        ("breaks", ["final"], ("error", "no", "never")),
        ("breaks", ["error"], ("outcome", "error: ValueError: broken", "successful")),
    ],
)
async def test_it_ends_as_it_did_and_a_change_of_the_code_is_found_where_it_shows(
    client: Client, func: str, args: list[Any], difference: tuple[str, Any, Any]
) -> None:
    process = await ended(client, func, *args)
    same = await again(client, process.id, shop())
    assert told(same) is None
    assert same.same_code
    found = told(await again(client, process.id, shop(changed=True)))
    assert found is not None
    path, expected, got = found
    if isinstance(expected, str):
        expected = expected.partition(" (")[0]
    assert (path, expected, got) == difference


async def test_what_it_logs_is_shown_and_kept_nowhere(client: Client) -> None:
    process = await ended(client, "double", 4)
    await again(client, process.id, shop())
    assert SHOWN[:2] == ["doubling 4\n", "said by logging\n"]
    assert SHOWN[2:] in ([], SHOWN[1:2])  # the worker of this test listens to `logging` in this program too


async def test_each_attempt_can_be_run_again(client: Client) -> None:
    process = await ended(client, "flaky", maxretries=5)
    assert [attempt.outcome for attempt in process.attempts] == ["failed", "failed", "successful"]
    for n in (1, 2, 3, None):
        found = await again(client, process.id, shop(), n)
        assert (told(found), found.attempt.n) == (None, n or 3)
    with pytest.raises(NotFound, match="no attempt 4; it has 1 to 3"):
        await again(client, process.id, shop(), 4)


async def test_an_attempt_that_waits_is_compared_with_how_long(client: Client) -> None:
    process = await ended(client, "breaks", "later")
    assert told(await again(client, process.id, shop(), 1)) is None
    found = await again(client, process.id, shop(changed=True), 1)
    assert (told(found) or "")[0] in ("error", "delay_s")


async def test_a_node_gets_what_its_parents_gave_large_values_too(client: Client) -> None:
    spec = [
        {"name": "many", "func": "rows", "args": [30_000], "conditions": {"runtimetype": "python"}},
        {"name": "two", "func": "double", "args": [1], "conditions": {"runtimetype": "python"}},
        {
            "name": "sum",
            "func": "total",
            "args": [[{"$output": "many"}, {"$output": "two"}]],
            "conditions": {"runtimetype": "python", "dependencies": ["many", "two"]},
        },
    ]
    handle = await client.submit_workflow(spec)
    await handle.wait(60)
    process = node_id(handle.id, "sum")
    found = await again(client, process, shop())
    assert (told(found), found.here.output) == (None, [30_000, 2, 0])
    assert (told(await again(client, process, shop(changed=True))) or "")[0] == "output[2]"


async def test_what_it_adds_is_compared_and_not_added(client: Client) -> None:
    spec = [{"name": "a", "func": "adds", "args": [["x", "yy"]], "conditions": {"runtimetype": "python"}}]
    handle = await client.submit_workflow(spec)
    await handle.wait(60)
    process = node_id(handle.id, "a")
    assert told(await again(client, process, shop())) is None
    path, expected, got = told(await again(client, process, shop(changed=True))) or ("", 0, 0)
    assert (path, expected, got) == ("added.nodes[0].args[0]", 1, 2)


@pytest.mark.parametrize("func", ["asks", "asks_in_a_thread"])
async def test_it_gets_the_signals_that_had_come(client: Client, func: str) -> None:
    handle = await client.submit({"func": func, "conditions": {"runtimetype": "python"}})
    for number in range(2):
        await client.signal(handle.id, "approve", {"budget": number})
        if func == "asks_in_a_thread":
            break
    await handle.wait(60)
    found = await again(client, handle.id, shop())
    assert told(found) is None
    assert found.here.output == ([{"budget": 0}, "ann"] if func == "asks" else {"budget": 0})


async def test_a_signal_that_came_after_an_attempt_is_none_of_its(client: Client) -> None:
    handle = await client.submit(
        {"func": "asks_soon", "maxretries": 50, "conditions": {"runtimetype": "python"}}
    )
    while not (await handle.get()).failures:
        await asyncio.sleep(0.02)
    await client.signal(handle.id, "go", "now")
    process = await handle.wait(60)
    assert told(await again(client, handle.id, shop(), 1)) is None
    last = await again(client, handle.id, shop())
    assert (told(last), last.attempt.n, last.here.output) == (None, len(process.attempts), "now")


async def test_what_it_would_submit_is_refused(colony: RunningColony, client: Client) -> None:
    creds = str(await colony.credential("bob", "user"))
    process = await ended(client, "submits", 8)
    found = await again(client, process.id, shop(url=colony.url, creds=creds))
    assert found.difference is not None
    assert found.difference.expected == "successful"
    assert "a replay, which writes nothing" in found.difference.got


async def test_an_attempt_that_timed_out_is_held_against_its_limit(client: Client) -> None:
    process = await ended(client, "slow", 1.0, maxexectime=0.3)
    assert told(await again(client, process.id, shop())) is None
    path, expected, got = told(await again(client, process.id, shop(changed=True))) or ("", 0, 0)
    assert (path, expected) == ("seconds", "more than 0.3")
    assert got < 0.3


async def test_what_did_not_end_by_itself_has_nothing_to_compare(client: Client) -> None:
    handle = await client.submit({"func": "asks", "conditions": {"runtimetype": "python"}})
    while not (await handle.get()).attempts:
        await asyncio.sleep(0.02)
    await client.cancel(handle.id, "enough")
    found = await again(client, handle.id, shop())
    assert (found.same, found.recorded) == (None, None)
    assert found.here.text is not None
    assert "no further signal approve" in found.here.text


async def test_what_cannot_be_run_is_said(client: Client) -> None:
    process = await ended(client, "double", 1)
    with pytest.raises(Invalid, match="has no function 'double', which the process is of; it has: none"):
        await again(client, process.id, Worker("python"))
    waiting = await client.submit({"func": "x", "conditions": {"runtimetype": "nobody-has-this"}})
    with pytest.raises(NotFound, match="no worker has taken it"):
        await again(client, waiting.id, shop())
    with pytest.raises(NotFound, match="there is no process"):
        await again(client, "01JZY8ZZZZZZZZZZZZZZZZZZZZ", shop())


async def test_two_errors_of_which_only_the_place_moved_are_the_same() -> None:
    one, other = "ValueError: a (b) (shop.py:12 in f)", "ValueError: a (b) (shop.py:13 in f)"
    assert _without_place(one) == _without_place(other) == "ValueError: a (b)"
