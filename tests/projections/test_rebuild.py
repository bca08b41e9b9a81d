"""Views built anew beside those that answer: nobody who asks notices, and the rows are the same."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from colonies_projections import Projector
from colonies_projections.build import Build
from colonies_projections.position import Unusable

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


@pytest.mark.parametrize("when", ["while it is built", "when it has caught up"])
async def test_a_build_that_breaks_leaves_the_views_that_answer_alone(
    colony: RunningColony, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    client = await colony.client()
    await client.submit(spec("x"))
    path = tmp_path / "views.sqlite"
    async with projecting(await colony.session("viewer", "observer"), path) as projector:
        await ask(client.session, "processes")
        former, broke = projector.build, 0
        catch_up, take_in = Projector._catch_up, Build.take_in

        async def broken_catch_up(self: Projector, build: Build) -> None:
            nonlocal broke
            if build is self.next:
                broke += 1
                raise Unusable("it is broken")
            await catch_up(self, build)

        async def broken_take_in(self: Build, *given: Any) -> None:
            nonlocal broke
            if self.store.path != path:
                broke += 1
                raise Unusable("it is broken")
            await take_in(self, *given)

        with monkeypatch.context() as patched:
            if when == "while it is built":
                patched.setattr(Build, "take_in", broken_take_in)
            else:
                patched.setattr(Projector, "_catch_up", broken_catch_up)
            projector.rebuild()
            await until(lambda: broke == 1 and projector.beside is None, "it broke")
        assert projector.build is former
        assert len((await ask(client.session, "processes"))["items"]) == 1
        projector.rebuild()
        await until(lambda: projector.build not in (None, former), "the swap")
        assert broke == 1
