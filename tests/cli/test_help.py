"""Help: quick, complete, and with an example wherever one looks."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version

from colonies_cli import tree

from tests.cli.conftest import Cli

HEAVY = ("nats", "pydantic", "cryptography", "structlog", "colonies", "aiosqlite", "uvloop", "asyncio", "rich")


def commands() -> list[tuple[str, ...]]:
    """Every command and every group, as words."""
    import typer

    found: list[tuple[str, ...]] = []

    def walk(command: object, words: tuple[str, ...]) -> None:
        found.append(words)
        for name, sub in getattr(command, "commands", {}).items():
            walk(sub, (*words, name))

    walk(typer.main.get_command(tree.build()), ())
    return found


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from colonies_cli.main import run\n"
        "sys.argv = ['colonies', '--help']; code = run()\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Commands:" in done.stdout
    assert not set(HEAVY) & set(done.stderr.split())


def test_every_command_explains_itself_and_all_its_options(alone: Cli) -> None:
    found = commands()
    assert ("process", "submit") in found
    assert ("ledger", "verify") in found
    for words in found:
        done = alone.ok(*words, "--help")
        body = done.out.split("Options:")[1]
        for line in re.findall(r"^  (-.*)$", body, re.MULTILINE):
            # An option without help stands alone: no text after it, and none on the line below.
            assert re.search(r"\S  +\S", line) or re.search(re.escape(line) + r"\n {10,}\S", body), (words, line)


def test_every_group_shows_an_example(alone: Cli) -> None:
    for noun in ("process", "worker", "member", "context", "ledger", "server"):
        assert "Example: colonies " in " ".join(alone.ok(noun, "--help").out.split())


def test_the_shared_options_are_on_every_command(alone: Cli) -> None:
    for words in commands():
        if len(words) == 2 and words[0] != "server":
            out = alone.ok(*words, "--help").out
            for option in ("--context", "--url", "--creds", "-o, --output"):
                assert option in out, words


def test_version_is_that_of_the_package(alone: Cli) -> None:
    assert alone.ok("--version").out == f"colonies {version('colonies')}\n"


def test_the_exit_codes_are_in_the_help(alone: Cli) -> None:
    out = " ".join(alone.ok("--help").out.split())
    assert "2 usage or refused input, 3 the process failed or was cancelled, 4 not permitted" in out
