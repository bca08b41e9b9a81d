"""Lists: pages that lose and double nothing while events arrive, sorts, words, times, and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from colonies_projections import Asked, Page, Snapshot, listing
from colonies_projections.question import cursor
from structlog.testing import capture_logs

from colonies.errors import Invalid, NotFound, Unavailable
from tests.harness import RunningColony
from tests.projections.helpers import VIEWS, Verdicts, ask, ledger_of, projecting

NOBODY = {"runtimetype": "nobody"}


def work(func: str, *args: Any, **more: Any) -> dict[str, Any]:
    return {"func": func, "args": list(args), "conditions": NOBODY, **more}


def forged(view: str, sort: str, *key: Any) -> str:
    """A cursor that no projector has given."""
    return cursor([view, {}, sort, False], key)


async def test_pages_hold_each_item_once_while_others_come_and_change(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        old = await client.submit_many([work("f", number) for number in range(120)])
        await ask(client.session, "processes")

        async def go_on() -> None:
            for handle in old[::3]:
                await client.submit(work("new"))
                await handle.cancel()

        busy = asyncio.create_task(go_on())
        seen: list[str] = []
        cursor = None
        while True:
            answer = await ask(client.session, "processes", limit=7, cursor=cursor, func="f")
            seen += [item["id"] for item in answer["items"]]
            cursor = answer.get("cursor")
            await asyncio.sleep(0.01)
            if cursor is None:
                break
        await busy
        assert seen == [handle.id for handle in reversed(old)]
        last = await ledger_of(client.session).last_sequence()
        with pytest.raises(NotFound, match=r"has a view procs; there are: crons, findings, .* processes, "):
            await anext(client.query("procs"))
        waiting = [item["id"] async for item in client.query("processes", state="waiting", func="f", at=last)]
        assert waiting == [handle.id for number, handle in reversed(list(enumerate(old))) if number % 3]
        assert len([item async for item in client.query("processes", limit=11)]) == 11


async def test_words_are_found_in_what_was_asked_for_and_in_errors(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        await colony.spawn("w1")
        failing = await client.submit({"func": "give_up", "conditions": {"runtimetype": "python"}})
        named = await client.submit(work("resize_image", "s3://bucket/Königsberg.png", name="holiday"))
        labelled = await client.submit(work("other", label="nightly-run"))
        error = (await failing.wait(30)).errors[-1]

        async def found(text: str, **more: Any) -> list[str]:
            items = (await ask(client.session, "processes", text=text, **more))["items"]
            return [item["id"] for item in items]

        assert await found("resize") == [named.id]
        assert await found("IMAGE königsb") == [named.id]
        assert await found("holiday bucket") == [named.id]
        assert await found("night") == [labelled.id]
        assert await found(named.id) == [named.id]
        assert failing.id in await found(error.split()[-1].strip(".!'\""))
        assert await found("nothing-like-it") == []
        new_letter = await client.submit(work("f", "caf\u19b0bar"))  # newer than the index
        assert await found("caf\u19b0bar") == [new_letter.id]
        assert await found("bar") == [new_letter.id]
        for odd in (
            '"',
            "a AND",
            "NEAR(",
            "resize*",
            "words:x",
            "(",
            "a OR b",
            "-",
            "'; DROP TABLE processes",
        ):
            answer = await ask(client.session, "processes", text=odd)
            assert "items" in answer or answer["kind"] == "invalid", odd
        submitted = (await ask(client.session, "processes", id=named.id))["items"][0]["submitted_at"]
        assert await found("resize", since=submitted) == [named.id]
        assert await found("resize", until=submitted) == []


async def test_a_list_is_sorted_by_what_does_not_change_any_more(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        handles = await client.submit_many([work("f") for _ in range(6)])
        for handle in (handles[4], handles[1], handles[3]):
            await handle.cancel()

        async def found(sort: str) -> list[int]:
            ids = [handle.id for handle in handles]
            return [ids.index(item["id"]) async for item in client.query("processes", sort=sort)]

        assert await found("submitted") == [0, 1, 2, 3, 4, 5]
        assert await found("-submitted") == [5, 4, 3, 2, 1, 0]
        assert await found("ended") == [4, 1, 3]
        assert await found("-ended") == [3, 1, 4]
        by_id = sorted(range(6), key=lambda number: handles[number].id)
        assert await found("id") == by_id
        assert await found("-id") == by_id[::-1]


async def test_ids_are_found_by_how_they_begin_now_and_then(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        first = await client.submit(work("f"))
        before = await ledger_of(client.session).last_sequence()
        second = await client.submit(work("f"))
        keyed = await client.submit(work("f"), key="k")
        await first.cancel()

        async def found(begins: str, **more: Any) -> set[str]:
            return {item["id"] async for item in client.query("processes", begins=begins, **more)}

        ids = {handle.id for handle in (first, second, keyed)}
        for id in ids:
            for length in (20, 25, 26):  # those of one millisecond differ at their end
                assert await found(id[:length]) == {other for other in ids if other.startswith(id[:length])}
        assert await found(first.id[:2]) == {first.id, second.id}
        assert await found(first.id[:2], state="waiting") == {second.id}
        assert await found(first.id[:2], at=before) == {first.id}
        assert await found(first.id[:2], at=before, sort="-id", state="waiting") == {first.id}
        assert await found(f"{first.id}0") == set()
        assert [item async for item in client.query("workflows", begins=first.id[:2])] == []


@pytest.mark.parametrize(
    ("question", "error"),
    [
        (
            {"sort": "colour"},
            "sort: 'colour' is not one; allowed: submitted, ended, id; - before it for the ",
        ),
        ({"cursor": "nonsense"}, "cursor: it is none of ours; allowed: the one of the answer before"),
        ({"cursor": "bm9uc2Vuc2U"}, "cursor: it is none of ours"),
        (
            {"sort": "ended", "cursor": forged("processes", "ended", "\ud800", 1)},
            "cursor: it is none of ours",
        ),
        ({"sort": "ended", "cursor": forged("processes", "ended", 1, 2**63 - 1)}, "cursor: it is none of"),
        ({"cursor": "x" * 5_000}, "cursor: it has 5000 characters; at most 4096 are allowed"),
        ({"at": 0}, "at: 0; allowed: a whole number from 1 to"),
        ({"at": "now"}, "at: 'now'; allowed: a whole number"),
        ({"at_least": 10**6}, "there is no event 1000000 yet: the ledger ends at"),
        (
            {"since": "yesterday"},
            "since: 'yesterday'; allowed: a time with its zone, such as 2026-01-31T09:3",
        ),
        ({"since": "2026-01-31T09:30:00"}, "since: '2026-01-31T09:30:00'; allowed: a time with its zone"),
        ({"begins": "01J%"}, "begins: '01J%'; allowed: letters and digits"),
        ({"text": "!?"}, "text: '!?'; allowed: words of letters or digits"),
    ],
)
async def test_what_makes_no_sense_is_answered_with_what_does(
    colony: RunningColony, tmp_path: Path, question: dict[str, Any], error: str
) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        answer = await ask(client.session, "processes", **question)
        assert answer["error"].startswith(error)
        assert answer["kind"] == "invalid"


async def test_a_cursor_goes_on_with_its_own_question_only(colony: RunningColony, tmp_path: Path) -> None:
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        await client.submit_many([work("f") for _ in range(3)])
        first = await ask(client.session, "processes", limit=1, func="f")
        other = await ask(client.session, "processes", limit=1, cursor=first["cursor"])
        assert other["error"].startswith("cursor: it is of another question")
        with pytest.raises(Invalid, match="'colour' is no filter"):
            _ = [item async for item in client.query("processes", colour="red")]


@pytest.mark.parametrize("most", [1, 1_000], ids=["in the table's order", "sorted"])
async def test_of_several_states_one_must_hold(
    colony: RunningColony, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(listing, "SORTED", most)
    client = await colony.client()
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "views.sqlite"):
        handles = await client.submit_many([work("f" if number % 2 else "g") for number in range(8)])
        ids = [handle.id for handle in handles]
        for handle in handles[::3]:
            await handle.cancel()

        async def found(**question: Any) -> list[int]:
            return [ids.index(item["id"]) async for item in client.query("processes", **question)]

        assert await found(state="waiting,cancelled") == [7, 6, 5, 4, 3, 2, 1, 0]
        assert await found(state="cancelled,failed") == [6, 3, 0]
        assert await found(state="cancelled,cancelled") == [6, 3, 0]
        assert await found(state="cancelled,failed", func="g") == [6, 0]
        assert await found(state="cancelled,failed", sort="ended") == [0, 3, 6]
        first = await ask(client.session, "processes", state="cancelled,failed", limit=2)
        again = {"state": "cancelled,failed", "cursor": first["cursor"]}
        rest = await ask(client.session, "processes", **again)
        assert [item["id"] for item in (*first["items"], *rest["items"])] == [ids[6], ids[3], ids[0]]
        for wrong in ("waiting,lost", "waiting,", ","):
            with pytest.raises(Invalid, match="is not one; allowed: blocked, waiting"):
                await found(state=wrong)


class Mistaken(Verdicts):
    """A view that asks for something that is no SQL."""

    async def answer(self, asked: Asked, at: Snapshot) -> Page:
        return Page(await at.select("SELECT * SORTED BY sequence", ()))


async def test_a_question_that_a_view_puts_wrongly_builds_nothing_anew(
    colony: RunningColony, tmp_path: Path
) -> None:
    client = await colony.client()
    views = (*VIEWS, Mistaken)
    async with projecting(
        await colony.session("viewer", "observer"), tmp_path / "v.sqlite", views
    ) as projector:
        before = projector.build
        with capture_logs() as logs:
            answer = await ask(client.session, "verdicts")
        assert answer == {"error": "a defect of the projector; its log says more", "kind": "defect"}
        assert [entry["event"] for entry in logs] == ["question not answered"]
        with pytest.raises(Unavailable, match="the projector has no answer: a defect"):
            [item async for item in client.query("verdicts")]
        assert (await ask(client.session, "processes"))["items"] == []
        assert projector.build is before
