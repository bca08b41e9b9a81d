"""Help: quick, complete, and with an example wherever one looks."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from typing import Any

from colonies_cli import tree

from tests.cli.conftest import Cli

HEAVY = (
    "nats",
    "pydantic",
    "cryptography",
    "structlog",
    "colonies",
    "aiosqlite",
    "uvloop",
    "asyncio",
    "rich",
    "fastapi",
    "uvicorn",
    "prometheus_client",
    "ssl",
)


def commands() -> dict[str, Any]:
    """Every command and every group, as typer has them, by its words."""
    found: dict[str, Any] = {}

    def walk(command: Any, words: str) -> None:
        found[words] = command
        for name, sub in getattr(command, "commands", {}).items():
            walk(sub, f"{words} {name}")

    walk(tree.whole(), "colonies")
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


def test_every_command_explains_itself_and_all_its_options() -> None:
    found = commands()
    assert {"colonies process submit", "colonies worker start", "colonies ledger verify"} <= found.keys()
    for words, command in found.items():
        assert command.help, words
        for parameter in command.params:
            assert parameter.help, (words, parameter.name)


def test_every_help_can_be_printed(alone: Cli) -> None:
    for words in ((), ("process",), ("process", "run")):
        assert alone.ok(*words, "--help").out.startswith(f"Usage: {' '.join(('colonies', *words))} ")


def test_every_group_shows_an_example() -> None:
    for words, command in commands().items():
        if hasattr(command, "commands"):
            assert "Example: colonies " in " ".join(command.help.split()), words


def test_the_shared_options_are_on_every_command() -> None:
    for words, command in commands().items():
        if hasattr(command, "commands") or words in ("colonies dev", "colonies server start"):
            continue
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--context", "--url", "--creds", "-o", "--output"} <= options, words


def test_version_is_that_of_the_package(alone: Cli) -> None:
    assert alone.ok("--version").out == f"colonies {version('colonies')}\n"


def test_the_exit_codes_are_in_the_help(alone: Cli) -> None:
    out = " ".join(alone.ok("--help").out.split())
    assert "2 usage or refused input, 3 the process or workflow failed or was cancelled, 4 not" in out
