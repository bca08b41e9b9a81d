"""A ledger leaves its broker in a file; verified and imported without one it shows what the colony showed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from colonies_projections import offline

import colonies
from colonies import Fail, Worker, imported, past
from colonies.client import Client
from colonies.core.events import Cancelled, Queued
from colonies.core.spec import Spec, queue_of
from colonies.core.workflow import node_id
from colonies.errors import Invalid, Refused, Unavailable
from colonies.export_check import verify_export
from colonies.export_file import Cut, Header, Writer, opened
from colonies.exporting import Wanted, export, refs_of
from colonies.ids import new_id
from colonies.imported import READER, ImportedLedger, ImportSession
from colonies.ledger import Draft, Ledger, Stored
from colonies.logs import read_logs
from colonies.nkeys import KeyPair
from colonies.reading import source_of
from colonies.replaying import replay
from colonies.session import Session
from colonies.show import process_object
from colonies.verify import Report, verify, verify_ledger
from tests.harness import RunningColony, running_colony
from tests.projections.helpers import ask, ledger_of, projecting

pytestmark = pytest.mark.asyncio(loop_scope="module")

VIEWS = ("processes", "workflows", "queues", "workers")
PYTHON = {"runtimetype": "python"}

worker = Worker("python", concurrency=8, backoff_s=0.05)


@worker.function
def double(n: int) -> int:
    colonies.current().log(f"doubling {n}")
    return 2 * n


@worker.function
def large(n: int) -> list[int]:
    return list(range(n))


@worker.function
def flaky(n: int) -> int:
    if colonies.current().n <= n:
        raise ValueError("not yet")
    return n


@worker.function
def never() -> None:
    raise Fail("never")


def node(name: str, func: str, *args: Any, after: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    conditions = {**PYTHON, "dependencies": list(after)}
    return {"name": name, "func": func, "args": list(args), "conditions": conditions, **more}


async def live_a_little(colony: RunningColony) -> None:
    """Of everything something: what went well, what did not, what is forged, and what is large."""
    client = await colony.client("ann")
    handles = [await client.submit({"func": "double", "args": [n], "conditions": PYTHON}) for n in range(30)]
    handles += [await client.submit({"func": "large", "args": [60_000], "conditions": PYTHON})]
    handles += [await client.submit({"func": "double", "args": ["x" * 200_000], "conditions": PYTHON})]
    handles += [await client.submit({"func": "flaky", "args": [2], "maxretries": 5, "conditions": PYTHON})]
    handles += [await client.submit({"func": "never", "conditions": PYTHON})]
    waiting = await client.submit({"func": "double", "args": [1], "conditions": {"runtimetype": "nobody"}})
    await client.submit({"func": "double", "args": [2], "conditions": {"runtimetype": "nobody"}})
    await client.cancel(waiting.id, "not wanted")
    nodes = [
        node("a", "large", 5),
        node("each", "double", {"$item": ""}, map={"$output": "a"}),
        node("end", "never", after=("each",)),
        node("last", "double", 1, after=("end",)),
    ]
    flow = await client.submit_workflow(nodes)
    again = await client.submit_workflow([node("x", "double", 3)])
    for handle in (*handles, flow, again):
        await handle.wait(60)
    await forged(colony, handles[0].id)


async def forged(colony: RunningColony, process: str) -> None:
    """Things that anybody with a right to publish can leave on a ledger."""
    bob = await colony.session("bob", "user")
    subject = f"ledger.process.{process}.cancelled.bob"
    last = await bob.ledger.last_of([f"ledger.process.{process}.>"])
    at = await bob.ledger.append(Draft(subject, b"\x93 no event", next(iter(last.values()))))
    now = await bob.ledger.now()
    subject, sealed = bob.seal(Cancelled("mine now"), process, prev=None, id=new_id(), now=now)
    await bob.ledger.append(Draft(subject, sealed.data, at))


@dataclass
class Lived:
    """A colony's ledger after its broker is gone: the export, and what was shown before."""

    folder: Path
    path: Path
    report: Report
    views: dict[str, Any]
    processes: dict[str, Any]
    logs: dict[str, list[str]]
    lines: list[dict[str, Any]]


async def shown(session: Session) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Every process as `process get` and `process logs` show it."""
    ids = {stored.subject.split(".")[2]: None for stored in await session.ledger.read("ledger.process.>")}
    processes: dict[str, Any] = {}
    logs: dict[str, list[str]] = {}
    for id in ids:
        story = await session.story(id)
        verdicts = [(seen.stored, seen.verdict) for seen in story.judged]
        processes[id] = process_object(story.process) if story.process else None, verdicts
        logs[id] = [entry.text for entry in await read_logs(session, id)]
    return processes, logs


async def written(session: Session, path: Path, wanted: Wanted) -> None:
    with path.open("wb") as stream:
        await export(session, source_of(session.ledger), wanted, stream)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lived(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lived]:
    folder = tmp_path_factory.mktemp("export")
    path = folder / "lab.colonies"
    async with running_colony(folder) as colony:
        instance = await colony.work(worker)
        await live_a_little(colony)
        instance.stop(0.0)
        observer = await colony.session("projector", "observer")
        while not [s async for b in observer.ledger.scan(0, "ledger.worker.*.stopped.*") for s in b]:
            await asyncio.sleep(0.02)
        async with projecting(observer, folder / "live" / "views.sqlite"):
            views = {view: (await ask(observer, view, limit=1_000))["items"] for view in VIEWS}
            lines = (await ask(observer, "logs", limit=1_000))["items"]
        processes, logs = await shown(observer)
        await written(observer, path, Wanted(notes=True))
        report = await verify_ledger(ledger_of(observer))
        for first in range(2, report.last_sequence + 1, 29):
            await written(
                observer, folder / f"{first}.colonies", Wanted(first, min(first + 40, report.last_sequence))
            )
    yield Lived(folder, path, report, views, processes, logs, lines)


async def judged(path: Path) -> Report:
    with opened(path) as reader:
        return await verify_export(reader)


async def test_verified_offline_it_is_judged_as_it_was_at_the_broker(lived: Lived) -> None:
    report = await judged(lived.path)
    assert report.events == report.last_sequence > 140
    assert (report.events, report.valid, report.findings) == (
        lived.report.events,
        lived.report.valid,
        lived.report.findings,
    )
    assert [finding.kind for finding in report.findings] == ["damaged", "quarantined"]
    assert report.name == "test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(lived: Lived) -> AsyncIterator[Session]:
    """The export, imported."""
    with opened(lived.path) as reader:
        imported.write(reader, lived.folder / "import")
    ledger = ImportedLedger(lived.folder / "import")
    session = await ImportSession(ledger, READER, KeyPair.new("user")).open()
    yield session
    await session.close()
    await ledger.close()


def ledger_in(session: Session) -> ImportedLedger:
    assert isinstance(session.ledger, ImportedLedger)
    return session.ledger


async def test_imported_it_gives_the_same_views(lived: Lived, session: Session) -> None:
    for view in VIEWS:
        for _ in range(2):  # built, then as they are
            answer = await offline.answer(ledger_in(session), f"query.{view}", {"limit": 1_000})
            assert answer["position"] == lived.report.last_sequence
            assert answer["items"] == lived.views[view], view
    assert len(lived.views["processes"]) > 40
    states = {item["state"] for item in lived.views["processes"]}
    assert states == {"successful", "failed", "cancelled", "waiting"}
    flows = [item["id"] for item in lived.views["workflows"]]
    assert any(node_id(flow, "each[2]") in lived.processes for flow in flows)


async def test_imported_its_logs_are_searched_as_they_were(lived: Lived, session: Session) -> None:
    async def found(**question: Any) -> dict[str, Any]:
        return await offline.answer(ledger_in(session), "query.logs", question)

    assert lived.lines
    for _ in range(2):  # the file is made, then as it is
        assert (await found(limit=1_000))["items"] == lived.lines
    first = lived.lines[-1]
    word = first["text"].split()[0]
    assert first in (await found(text=word, process=first["process"], limit=1_000))["items"]
    assert (await found(text="nobodywrotethis"))["items"] == []
    assert (await found(at=2))["items"] == []
    page = await found(limit=1)
    assert (await found(limit=1, cursor=page["cursor"]))["items"] == lived.lines[1:2]
    assert (await found(at_least=10**6))["kind"] == "invalid"
    (ledger_in(session).folder / "views.sqlite.logs").write_bytes(b"damaged" * 1_000)
    assert (await found(limit=1_000))["items"] == lived.lines


async def test_imported_without_its_logs_that_is_said(lived: Lived) -> None:
    with opened(lived.folder / "2.colonies") as reader:
        imported.write(reader, lived.folder / "silent")
    ledger = ImportedLedger(lived.folder / "silent")
    answer = await offline.answer(ledger, "query.logs", {})
    await ledger.close()
    assert answer["kind"] == "invalid"
    assert "has no logs; export it anew with --logs" in answer["error"]


async def test_imported_a_client_can_ask_for_lists(
    lived: Lived, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imported, "answers", None)
    client = Client(session)
    with pytest.raises(Unavailable, match="nothing answers on query"):
        [item async for item in client.query("processes")]
    offline.answer_here()
    failed = [item async for item in client.query("processes", state="failed")]
    assert failed == [item for item in lived.views["processes"] if item["state"] == "failed"]
    with pytest.raises(Invalid, match="no filter"):
        [item async for item in client.query("processes", colour="red")]


async def test_imported_every_process_has_its_history_its_outputs_and_its_logs(
    lived: Lived, session: Session
) -> None:
    processes, logs = await shown(session)
    assert processes == lived.processes
    assert logs == lived.logs
    assert any(texts for texts in logs.values())
    assert (await verify(source_of(session.ledger))).findings == lived.report.findings


async def test_imported_the_past_is_there_as_well(lived: Lived, session: Session) -> None:
    middle = lived.report.last_sequence // 2
    answer = await offline.answer(ledger_in(session), "query.processes", {"at": middle, "limit": 1_000})
    assert 0 < len(answer["items"]) < len(lived.views["processes"])
    before = past.PastLedger(session.ledger, await past.moment(session.ledger, str(middle)))
    assert await before.last_sequence() == middle


async def test_imported_an_attempt_can_be_run_again_with_large_values(lived: Lived, session: Session) -> None:
    ids = [id for id, (found, _) in lived.processes.items() if found and found["func"] in ("large", "double")]
    again = [
        await replay(session, id, worker, show=lambda _: None)
        for id in ids
        if lived.processes[id][0]["attempts"]
    ]
    assert len(again) > 30
    assert all(each.same for each in again), [each.difference for each in again if not each.same]


async def test_nothing_can_be_written_to_it(session: Session) -> None:
    ledger: Ledger = session.ledger
    draft = Draft("ledger.colony.configured.owner", b"", 1)
    for writing in (
        ledger.append(draft),
        ledger.send(draft),
        ledger.append_all([draft]),
        ledger.emit("log.x.w1", b""),
        ledger.put_value("w1", b""),
        ledger.offers(),
    ):
        with pytest.raises(Refused, match="it is only read"):
            await writing
    client = Client(session)
    with pytest.raises(Refused, match="it is only read"):
        await client.submit({"func": "x", "conditions": PYTHON})


async def test_every_part_is_judged_as_the_whole_and_holds_the_values_it_names(lived: Lived) -> None:
    parts = sorted(lived.folder.glob("[0-9]*.colonies"))
    assert len(parts) > 5
    for path in parts:
        first = int(path.stem)
        report = await judged(path)
        inner = [finding for finding in lived.report.findings if first <= finding.sequence <= first + 40]
        assert [f for f in report.findings if f.sequence >= first] == inner, path
        assert all(finding in lived.report.findings for finding in report.findings), path
        assert report.events - report.context == report.last_sequence - first + 1
        assert report.first == first


async def test_a_part_that_was_imported_is_exported_as_the_part_that_it_is(lived: Lived) -> None:
    path = min(lived.folder.glob("[0-9]*.colonies"), key=lambda path: -int(path.stem))
    with opened(path) as reader:
        before = reader.header
        imported.write(reader, lived.folder / "part")
    ledger = ImportedLedger(lived.folder / "part")
    part = await ImportSession(ledger, READER, KeyPair.new("user")).open()
    await written(part, lived.folder / "again", Wanted())
    await part.close()
    await ledger.close()
    with opened(lived.folder / "again") as reader:
        assert (reader.header.first, reader.header.last) == (before.first, before.last)
    one, other = await judged(path), await judged(lived.folder / "again")
    assert (one.events, one.findings) == (other.events, other.findings)


# --- what somebody did to the file --------------------------------------------------------------------

Change = Callable[[list[Stored], Header], tuple[list[Stored], Header]]


def remade(lived: Lived, name: str, change: Change) -> Path:
    """The export after a change, by somebody who knows the format: its digest is right."""
    with opened(lived.path) as reader:
        entries, header = change(list(reader), reader.header)
    path = lived.folder / f"{name}.changed"
    with path.open("wb") as stream:
        writer = Writer(stream, header)
        for entry in entries:
            writer.add(entry)
        writer.end()
    return path


def place_of(entries: list[Stored], part: str) -> int:
    return next(n for n, entry in enumerate(entries) if part in entry.subject)


async def findings_of(lived: Lived, name: str, change: Change) -> list[tuple[int, str]]:
    """What is found beside what was found before."""
    report = await judged(remade(lived, name, change))
    return [(f.sequence, f.kind) for f in report.findings if f not in lived.report.findings]


async def test_an_event_that_was_taken_out_is_missing(lived: Lived) -> None:
    with opened(lived.path) as reader:
        entries = list(reader)
    place = place_of(entries, ".completed.")
    found = await findings_of(lived, "gap", lambda e, h: (e[:place] + e[place + 1 :], h))
    assert (entries[place].sequence, "missing") in found


async def test_an_event_that_was_changed_or_moved_is_quarantined_or_damaged(lived: Lived) -> None:
    with opened(lived.path) as reader:
        entries = list(reader)
    place = place_of(entries, ".completed.")
    sequence = entries[place].sequence
    data = bytearray(entries[place].data)
    data[len(data) // 2] ^= 1
    for name, put in (
        ("bytes", replace(entries[place], data=bytes(data))),
        ("subject", replace(entries[place], subject=entries[place].subject.replace("w1", "owner"))),
        ("place", replace(entries[place_of(entries, ".assigned.")], sequence=sequence)),
    ):
        found = await findings_of(lived, name, lambda e, h, put=put: ([*e[:place], put, *e[place + 1 :]], h))
        assert sequence in dict(found), name


async def test_of_another_colony_nothing_is_believed(lived: Lived) -> None:
    other = KeyPair.new("account").public
    report = await judged(remade(lived, "other", lambda e, h: (e, replace(h, colony=other))))
    assert report.valid == 0
    assert not report.clean


async def test_a_stored_value_that_was_changed_or_taken_out_is_found(lived: Lived) -> None:
    with opened(lived.path) as reader:
        entries = list(reader)
    place = place_of(entries, "value.")
    put = replace(entries[place], data=entries[place].data[:-1] + b"\x00")
    assert {
        kind
        for _, kind in await findings_of(lived, "value", lambda e, h: ([*e[:place], put, *e[place + 1 :]], h))
    } == {"damaged"}
    gone = [entry for entry in entries if entry.subject != entries[place].subject]
    assert {kind for _, kind in await findings_of(lived, "gone", lambda e, h: (gone, h))} == {"missing"}
    without = [entry for entry in entries if not entry.subject.startswith("value.")]
    assert not await findings_of(lived, "without", lambda e, h: (without, replace(h, values=False)))


async def test_a_file_that_was_cut_off_is_judged_as_far_as_it_goes_and_not_imported(lived: Lived) -> None:
    whole = lived.path.read_bytes()
    path = lived.folder / "cut.changed"
    path.write_bytes(whole[: len(whole) // 3])
    report = await judged(path)
    assert not report.clean
    assert report.events == report.cut_after
    before = {finding.sequence for finding in lived.report.findings}
    assert {finding.kind for finding in report.findings if finding.sequence not in before} == {"missing"}
    with opened(path) as reader, pytest.raises(Cut, match="cut off"):
        imported.write(reader, lived.folder / "cut")
    assert not (lived.folder / "cut").exists()
    assert not list(lived.folder.glob(".cut*"))


async def test_a_tail_that_was_cut_and_sealed_anew_shows_only_in_where_the_file_says_that_the_ledger_ended(
    lived: Lived,
) -> None:
    def cut(entries: list[Stored], header: Header) -> tuple[list[Stored], Header]:
        last = header.last - 10
        kept = [e for e in entries if not e.subject.startswith("ledger.") or e.sequence <= last]
        return kept, replace(header, last=last)

    path = remade(lived, "tail", cut)
    with opened(path) as reader:
        assert reader.header.end == reader.header.last + 10


async def test_who_lies_about_anothers_stored_value_is_found_and_takes_it_from_nobody(tmp_path: Path) -> None:
    path = tmp_path / "lab.colonies"
    async with running_colony(tmp_path) as colony:
        await colony.work(worker)
        client, bob = await colony.client("ann"), await colony.session("bob", "user")
        handle = await client.submit({"func": "large", "args": [60_000], "conditions": PYTHON})
        await handle.wait(60)
        (ref,) = [r for s in await bob.ledger.read("ledger.process.*.completed.*") for r in refs_of(s)]
        spec = Spec.parse({"func": "double", "conditions": {"runtimetype": "nobody"}})
        lies: list[int] = []
        for size_bytes in (ref.size_bytes, ref.size_bytes + 1, ref.size_bytes - 1):
            event = Queued(spec, arguments=replace(ref, sha256="0" * 64, size_bytes=size_bytes))
            queue, now, id = queue_of(spec.conditions, 0), await bob.ledger.now(), new_id()
            subject, sealed = bob.seal(event, id, prev=None, id=new_id(), now=now, queue=queue)
            lies.append(await bob.ledger.append(Draft(subject, sealed.data, 0)))
        await written(client.session, path, Wanted())
    report = await judged(path)
    assert [(f.sequence, f.kind, f.author) for f in report.findings] == [
        (sequence, "damaged", "bob") for sequence in lies
    ]
    with opened(path) as reader:
        kept = b"".join(entry.data for entry in reader if entry.subject == f"value.{ref.object}")
    assert len(kept) == ref.size_bytes
