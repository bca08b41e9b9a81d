"""What the documents show is true: their Python runs, their commands exist, their tables are the code's."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from colonies_cli import exits, tree

import colonies
from colonies import roles, show

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COLONIES = Path(sys.executable).with_name("colonies")
LIMIT_S = 60.0


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[Path, list[str]]]:
    """Every `colonies` command that a page shows, in a block or in a line."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for line in re.findall(
            r"^(?:    |\$ )?(colonies [a-z].*)$|`(colonies [a-z][^`]*)`", text, re.MULTILINE
        ):
            command = "".join(line).partition("  #")[0]
            yield page, shlex.split(command)


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("dev")
def test_the_readmes_worker_and_client_work_as_they_stand(tmp_path: Path) -> None:
    worker, client = blocks(README, "python")
    (tmp_path / "hello_worker.py").write_text(worker)
    (tmp_path / "hello_client.py").write_text(client)
    (start,) = [line for block in blocks(README, "sh") for line in block.splitlines() if "greeter" in line]
    with (tmp_path / "worker.log").open("w") as log:
        running = subprocess.Popen([COLONIES, *shlex.split(start)[1:]], cwd=tmp_path, stdout=log, stderr=log)
    try:
        answer = subprocess.run(
            [sys.executable, "hello_client.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert answer.stdout == "Hello, Ada!\n", answer.stderr + (tmp_path / "worker.log").read_text()
    finally:
        running.terminate()
        running.wait(LIMIT_S)


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("dev")
def test_the_readmes_workflow_runs_and_so_do_the_lines_below_it(tmp_path: Path) -> None:
    section = README.partition("## A workflow\n")[2].partition("\n## ")[0]
    (spec,) = blocks(section, "yaml")
    (tmp_path / "words.yaml").write_text(spec)
    packed = {"func": "echo", "args": [{"$packed": ""}], "conditions": {"runtimetype": "cli"}}
    (tmp_path / "ten.json").write_text(json.dumps(packed))
    (submit,) = blocks(section, "sh")
    shown = re.findall(r"`(colonies [a-z][^`]*)`", section)

    def run(line: str, id: str = "") -> str:
        words = [id if word == "ID" else word for word in shlex.split(line)]
        done = subprocess.run(
            [COLONIES, *words[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    with (tmp_path / "worker.log").open("w") as log:
        start = "worker start --name lab --runtimetype cli"
        running = subprocess.Popen([COLONIES, *start.split()], cwd=tmp_path, stdout=log, stderr=log)
    try:
        (said,) = re.findall(r"prints `(words [^`]*)`", section)
        assert said in run(submit).splitlines()
        (tmp_path / "ok.json").write_text("[" + re.findall(r'`(\{"name": "ok"[^`]*)`', section)[0] + "]")
        id = run("colonies workflow submit --spec ok.json -o name").strip()
        told = {line.split()[2]: run(line, id) for line in shown}
        assert set(told) == {"get", "add", "signal"}
        assert run("colonies cron ls -o name") == "nightly\n"
        assert run("colonies generator ls -o name") == "tens\n"
        run("colonies workflow get ID --watch", id)
    finally:
        running.terminate()
        running.wait(LIMIT_S)


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("dev")
def test_the_workflows_on_the_files_page_are_successful(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "workflow-files.md").read_text(encoding="utf-8")
    specs = blocks(page, "yaml")
    with (tmp_path / "worker.log").open("w") as log:
        start = [COLONIES, "worker", "start", "--name", "lab", "--runtimetype", "cli"]
        running = subprocess.Popen(start, cwd=tmp_path, stdout=log, stderr=log)
    try:
        for number, spec in enumerate(specs):
            path = tmp_path / f"{number}.yaml"
            path.write_text(spec)
            done = subprocess.run(
                [COLONIES, "workflow", "submit", "--spec", path, "--wait"],
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
            assert done.returncode == 0, f"{spec}\n{done.stderr}"
    finally:
        running.terminate()
        running.wait(LIMIT_S)
    assert len(specs) > 2


def test_the_workflows_page_runs_from_top_to_bottom(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
    name = "workflows_page"
    module = sys.modules[name] = types.ModuleType(name)
    told: list[str] = []
    try:
        with colonies.memory() as colony:
            monkeypatch.setattr(colonies, "connect", lambda: contextlib.nullcontext(colony))
            for number, block in enumerate(blocks(page, "python")):
                exec(compile(block, f"block {number}", "exec"), vars(module))
                told += re.findall(r"print\(.*\)  # (.*)$", block, re.MULTILINE)
                if number == 0:
                    colony.work(vars(module)["worker"])
    finally:
        del sys.modules[name]
    assert capsys.readouterr().out.splitlines() == told
    assert len(told) > 5


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("dev")
def test_the_feeds_page_runs_from_top_to_bottom(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "feeds.md").read_text(encoding="utf-8")

    def run(command: list[str]) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    programs = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(programs) == len(blocks(page, "python")) > 2
    for program, printed in programs:
        assert run([sys.executable, "-c", program]) == printed
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    told = {line: run([str(COLONIES), *shlex.split(line)[1:]]) for line in lines}
    assert "process.cancelled" in told[lines[0]]
    assert [json.loads(line)["event"] for line in told[lines[1]].splitlines()] == 2 * ["process.cancelled"]
    assert json.loads(told[lines[-1]].splitlines()[0])["type"] == "colonies.member.approved"
    past = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").partition("## The past\n")[2]
    for line in blocks(past.partition("\n## ")[0], "sh")[0].splitlines():
        assert run([str(COLONIES), *shlex.split(line)[1:]])


@pytest.mark.parametrize("name", ["hello_worker.py", "hello_client.py"])
def test_the_readmes_python_is_that_of_the_examples(name: str) -> None:
    example = (ROOT / "examples" / name).read_text(encoding="utf-8")
    code = example.partition('"""\n\n')[2]
    assert code in blocks(README, "python")


def test_no_page_or_example_shares_its_runtime_type_with_another() -> None:
    """A worker of one would be offered the processes of the other."""
    used: dict[str, set[str]] = {}
    for path in (*PAGES, *sorted((ROOT / "examples").glob("*.py"))):
        text = path.read_text(encoding="utf-8")
        for kind in set(re.findall(r'^worker = colonies\.Worker\("(\w+)"', text, re.MULTILINE)):
            used.setdefault(kind, set()).add(path.name)
    assert used.pop("python") == {"README.md", "hello_worker.py"}  # which are the same
    assert len(used) > 6
    assert {kind: names for kind, names in used.items() if len(names) > 1} == {}


def test_a_python_worker_is_nine_lines() -> None:
    assert len(blocks(README, "python")[0].splitlines()) == 9


def test_the_readmes_spec_is_that_of_the_example() -> None:
    spec = (ROOT / "examples" / "sayhello.json").read_text(encoding="utf-8").strip()
    assert f"`{spec}`" in README


def _help_of(verbs: Iterable[str]) -> str:
    """What `colonies VERBS --help` prints, without what commands set up; nothing if there is no such one."""
    found: Any = tree.whole()
    context = found.make_context("colonies", [], resilient_parsing=True)
    for verb in verbs:
        if not hasattr(found, "get_command"):
            break  # what follows a command is its arguments
        found = found.get_command(context, verb)
        if found is None:
            return ""
        context = found.make_context(verb, [], parent=context, resilient_parsing=True)
    return str(found.get_help(context))


def test_every_command_shown_exists_and_takes_its_options() -> None:
    shown = list(commands())
    assert len(shown) > 10
    helps: dict[tuple[str, ...], str] = {}
    for page, words in shown:
        verbs = tuple(word for word in words[1:3] if re.fullmatch(r"[a-z]+", word))
        if verbs[:1] == ("dev",):
            verbs = ("dev",)
        if verbs not in helps:
            helps[verbs] = _help_of(verbs)
            assert helps[verbs], f"{page.name}: {shlex.join(words)}: there is no such command"
        for option in [word.partition("=")[0] for word in words if word.startswith("-")]:
            assert re.search(rf"(?<!\S){re.escape(option)}(?![\w-])", helps[verbs]), (
                f"{page.name}: {shlex.join(words)}: there is no {option}"
            )


def test_every_make_target_shown_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"(?:^    |`)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: make {target}"


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_roles_on_the_security_page_are_those_that_hold() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\w+) \| (.+\.) \|$", page, re.MULTILINE) == [
        (role.name, role.purpose) for role in roles.ROLES.values()
    ]


def permissions() -> str:
    """The table of what each role may say, publish and subscribe, as the security page shows it."""

    def cell(words: Iterable[str]) -> str:
        return ", ".join(f"`{word}`" for word in words) or "-"

    all_roles = list(roles.ROLES.values())
    asked = [ask for ask in all_roles[0].asks if all(ask in role.asks for role in all_roles)]
    heard = [topic for topic in all_roles[0].subscribe if all(topic in r.subscribe for r in all_roles)]
    rows = [("all", "-", cell(asked), cell(heard))]
    for role in all_roles:
        asks, hears = list(role.asks), list(role.subscribe)
        answers = ["whatever it is asked"] if role.answers else []
        own = cell(ask for ask in asks if ask not in asked)
        own = ", ".join([part for part in (own, *answers) if part != "-"]) or "-"
        rows.append(
            (f"`{role.name}`", cell(role.says), own, cell(topic for topic in hears if topic not in heard))
        )
    header = "| role | says | publishes beside that | subscribes |\n|---|---|---|---|\n"
    return header + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def test_the_permissions_on_the_security_page_are_those_of_the_table() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    assert permissions() in page, f"put this into docs/security.md:\n\n{permissions()}"


def test_the_exit_codes_on_the_page_are_those_of_the_command() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == {
        *(exits.DONE, exits.FAILED, exits.USAGE, exits.UNSUCCESSFUL, exits.REFUSED, exits.NOT_FOUND),
        *(exits.UNAVAILABLE, exits.INTERRUPTED, exits.READER_LEFT),
    }


def test_the_fields_of_a_process_on_the_page_are_those_that_are_printed() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    table = page.partition("A process:")[2].partition("The `outcome`")[0]
    names = [name for row in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for name in row.split(", ")]
    documented = re.search(r"`{(.*)\[{(.*?)}\](.*?)}`", show.process_object.__doc__ or "", re.DOTALL)
    assert documented is not None
    fields = re.findall(r"\w+", documented[1] + documented[3])
    assert [name.strip("`") for name in names] == fields


def test_the_life_of_a_process_is_drawn_as_the_code_draws_it() -> None:
    page = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
    drawn = (ROOT / "colonies" / "core" / "process.py").read_text(encoding="utf-8")
    picture = re.search(r"^    submitted ──>.*?poisoned──> failed$", drawn, re.MULTILINE | re.DOTALL)
    assert picture is not None
    assert picture[0] in page
