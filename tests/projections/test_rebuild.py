"""Views built anew beside those that answer: nobody who asks notices, and the rows are the same."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.harness import RunningColony, until
from tests.projections.helpers import ALL, ask, dump, projecting
from tests.projections.test_views import some_life, spec


async def test_views_are_built_anew_without_a_question_that_fails(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    session = await colony.session("viewer", "observer")
    path = tmp_path / "views.sqlite"
    async with projecting(session, path, ALL) as projector:
        await some_life(colony, client)
        await client.submit_many([spec("nobody does this") for _ in range(300)])
        await ask(client.session, "processes")
        first = projector.build
        answers: list[dict[str, Any]] = []

        async def keep_asking() -> None:
            while True:
                answers.append(await ask(client.session, "processes", limit=1))

        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(keep_asking()) for _ in range(3)]
            for _ in range(3):
                former = projector.build
                projector.rebuild()
                await until(lambda former=former: projector.build not in (None, former), "the swap")
            for task in asking:
                task.cancel()
        handle = await client.submit(spec("after it"))
        assert (await ask(client.session, "processes", limit=1))["items"][0]["id"] == handle.id
    assert first is not None
    assert len(answers) > 20
    assert not [answer for answer in answers if "items" not in answer]
    assert not path.with_name("views.sqlite.next").exists()
    rebuilt = tmp_path / "rebuilt.sqlite"
    async with projecting(session, rebuilt, ALL):
        await ask(client.session, "processes")
    async with projecting(session, path, ALL):
        await ask(client.session, "processes")
    assert dump(path) == dump(rebuilt)


async def test_what_was_left_of_a_build_that_was_killed_is_not_gone_on_with(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    await client.submit(spec("x"))
    beside = tmp_path / "views.sqlite.next"
    beside.write_bytes(b"half of something")
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite") as projector:
        assert not beside.exists()
        former = projector.build
        projector.rebuild()
        await until(lambda: projector.build not in (None, former), "the swap")
        assert len((await ask(client.session, "processes"))["items"]) == 1
