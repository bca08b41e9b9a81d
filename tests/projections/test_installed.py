"""Views of other packages: loaded from real entry points, and fenced in, whatever they do."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from colonies_projections import VIEWS, Projector, installed_views
from structlog.testing import capture_logs

from tests.harness import RunningColony
from tests.projections.helpers import ask, dump, projecting

README = Path(__file__).parents[2] / "projections" / "README.md"
SPEC = {"func": "x", "conditions": {"runtimetype": "nobody"}}

Install = Callable[..., None]


def code_of_readme() -> str:
    [code] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    return str(code)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package of one module with these entry points, as an installer leaves it."""
    site, modules = tmp_path / "site", []
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def install(module: str, code: str, **entries: str) -> None:
        (site / f"{module}.py").write_text(code)
        about = site / f"{module}-1.0.dist-info"
        about.mkdir(exist_ok=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        lines = [f"{name} = {module}:{attribute}" for name, attribute in entries.items()]
        (about / "entry_points.txt").write_text("\n".join(["[colonies.views]", *lines]) + "\n")
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        modules.append(module)

    yield install
    for module in modules:
        sys.modules.pop(module, None)


def views() -> list[Any]:
    return [*VIEWS, *installed_views(VIEWS)]


async def test_the_view_of_the_readme_is_asked_in_pages_and_as_it_was(
    colony: RunningColony, tmp_path: Path, install: Install
) -> None:
    install("my_views", code_of_readme(), submitters="Submitters")
    ann, bob = await colony.client("ann"), await colony.client("bob")
    first = await ann.submit(SPEC)
    async with projecting(await colony.session("viewer", "observer"), tmp_path / "v.sqlite", views()):
        after_first = (await ask(ann.session, "processes"))["position"]
        for client in (ann, bob, ann):
            await client.submit(SPEC)
        answer = await ask(ann.session, "submitters", sort="member")
        assert answer["items"] == [{"member": "ann", "processes": 3}, {"member": "bob", "processes": 1}]
        page = await ask(ann.session, "submitters", sort="member", limit=1)
        rest = await ask(ann.session, "submitters", sort="member", limit=1, cursor=page["cursor"])
        assert page["items"] + rest["items"] == answer["items"]
        then = await ask(ann.session, "submitters", at=after_first)
        assert then["items"] == [{"member": "ann", "processes": 1}]
        only = await ask(ann.session, "submitters", member="bob")
        assert only["items"] == [{"member": "bob", "processes": 1}]
        wrong = await ask(ann.session, "submitters", colour="red")
        assert "'colour' is no filter; allowed: member" in wrong["error"]
    assert first.id


async def test_a_view_that_changes_is_built_anew_by_itself(
    colony: RunningColony, tmp_path: Path, install: Install
) -> None:
    ann, path = await colony.client("ann"), tmp_path / "v.sqlite"
    session = await colony.session("viewer", "observer")
    await ann.submit(SPEC)
    async with projecting(session, path, views()):
        pass
    for code in (code_of_readme(), code_of_readme().replace("version = 1 ", "version = 2 ")):
        install("my_views", code, submitters="Submitters")
        with capture_logs() as logs:
            async with projecting(session, path, views()):
                assert (await ask(ann.session, "submitters"))["items"][0]["processes"] == 1
        assert "another version, or with other views" in str([entry.get("reason") for entry in logs])


GOOD = """
from colonies_projections import Page

class Good:
    name, version, tables, filters, sorts = "good", 1, "CREATE TABLE good (x, y);", {}, ()
    def fold(self, batch):
        yield "INSERT INTO good VALUES (?, 0)", [(j.stored.sequence,) for j in batch.judged]
    async def answer(self, asked, at):
        return Page([{"events": len(await at.select("SELECT x FROM good", ()))}])
"""


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("good", ("from colonies_projections", "from no_such_module"), "No module named 'no_such_module'"),
        ("good", ("class Good:", "raise SystemExit(3)\nclass Good:"), "SystemExit: 3"),
        ("good", ('"good", 1,', '"processes", 1,'), "its entry point is called good, it calls itself pro"),
        ("processes", ('"good", 1,', '"processes", 1,'), "there is a view processes, whose tables"),
        ("queues_of_mine", ('"good", 1,', '"queues_of_mine", 1,'), "there is a view queues, whose tables"),
        ("rebuild", ('"good", 1,', '"rebuild", 1,'), "its name is 'rebuild'; allowed: "),
        ("Good", ('"good", 1,', '"Good", 1,'), "its name is 'Good'; allowed: a-z"),
        ("good", ('"good", 1,', '"good", "one",'), "its version is no int"),
        ("good", ("CREATE TABLE good (x, y);", "CREATE TABLE good (x)); DROP"), "OperationalError"),
        ("good", ("CREATE TABLE good (x, y);", "CREATE TABLE evil (x);"), "it makes evil; all that it makes"),
        ("good", ("CREATE TABLE good (x, y);", "COMMIT; CREATE TABLE good (x, y);"), "end the transaction"),
        ("good", ("{}, ()", '{"a": None}, ()'), "its filters are no Filter each"),
        ("good", ("def fold(self, batch):", "def fold(self):"), "TypeError"),
        ("good", ("class Good:", "class Other:"), "has no attribute 'Good'"),
    ],
)
def test_a_view_that_is_none_is_said_and_left_out(
    install: Install, name: str, change: tuple[str, str], reason: str
) -> None:
    changed = GOOD.replace(*change)
    assert changed != GOOD
    install("bad_views", changed, **{name: "Good"})
    install("my_views", GOOD.replace("good", "fine"), fine="Good")
    with capture_logs() as logs:
        found = installed_views(VIEWS)
    assert [make().name for make in found] == ["fine"]
    [said] = [entry for entry in logs if entry["log_level"] == "error"]
    assert (said["view"], said["package"]) == (name, "bad_views")
    assert reason in said["reason"]


FAILS = """
        if any(b"nobody" in j.stored.data for j in batch.judged):
            {}
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ('raise KeyError("mine")', "KeyError: 'mine'"),
        ('yield "INSERT INTO nowhere VALUES (1)", [()]', "OperationalError: no such table: nowhere"),
        ('yield "INSERT INTO good VALUES (?, 0)", [(1, 2)]', "ProgrammingError"),
        ("yield 7", "TypeError"),
        ('yield "INSERT INTO good VALUES (7, 7)", [()]; raise KeyError("late")', "KeyError: 'late'"),
    ],
)
async def test_a_view_that_fails_is_left_out_and_stays_out_and_harms_no_other(
    colony: RunningColony, tmp_path: Path, install: Install, error: str, said: str
) -> None:
    start = "    def fold(self, batch):"
    install("my_views", GOOD.replace(start, start + FAILS.format(error)), good="Good")
    ann, path = await colony.client("ann"), tmp_path / "v.sqlite"
    session = await colony.session("viewer", "observer")
    async with projecting(session, path, views()) as projector:
        events = (await ask(ann.session, "good", at_least=0))["items"][0]["events"]
        assert events == projector.build.position.sequence if projector.build else False
        await ann.submit(SPEC)
        assert len((await ask(ann.session, "processes"))["items"]) == 1
    async with projecting(session, path, views()) as projector:
        await ann.submit(SPEC)
        assert len((await ask(ann.session, "processes"))["items"]) == 2
        assert isinstance(projector, Projector)
        answer = await _answer(ann, "good")
        assert answer["kind"] == "behind"
        assert "the view good is left out since sequence " in answer["error"]
        assert said in answer["error"]
    assert len(dump(path)["good"]) == events
    assert [row[0] for row in dump(path)["broken"]] == ["good"]


async def _answer(client: Any, view: str) -> dict[str, Any]:
    answered: dict[str, Any] = await client.session.ledger.ask_service(f"query.{view}", {}, wait_s=15)
    return answered


@pytest.mark.parametrize(
    "change", [("return Page(", "return list("), ("SELECT x", "SELECT z"), ("return Page", "1 / 0 #")]
)
async def test_a_question_that_a_view_fails_at_fails_alone(
    colony: RunningColony, tmp_path: Path, install: Install, change: tuple[str, str]
) -> None:
    install("my_views", GOOD.replace(*change), good="Good")
    ann = await colony.client("ann")
    with capture_logs() as logs:
        async with projecting(await colony.session("viewer", "observer"), tmp_path / "v.sqlite", views()):
            answer = await _answer(ann, "good")
            assert "the view good failed: " in answer["error"]
            assert "items" in await ask(ann.session, "processes")
    assert "built anew" not in str(logs)
