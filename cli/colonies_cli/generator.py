"""`colonies generator`: workflows that run whenever enough arguments have come."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colonies_cli import listing, options, output, specs
from colonies_cli.command import Here, command, group
from colonies_cli.output import Output

if TYPE_CHECKING:
    from colonies.client import Client
    from colonies.core.flow import WorkflowSpec
    from colonies.generators import GeneratorNow, RunNow

MAX_STDIN_BYTES = 64 * 1024 * 1024

app = group(
    "Run a workflow, or a process, whenever enough arguments have come.\n\n"
    "Example: colonies generator pack resize a.png b.png"
)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The generator's name.", show_default=False)]


@command(app, "add")
def add(
    here: Here,
    name: Annotated[
        str,
        typer.Option("--name", metavar="N", help="Its name: letters, digits, _ and -.", show_default=False),
    ],
    spec: Annotated[
        str,
        typer.Option(
            "--spec",
            metavar="FILE",
            help="A workflow or a process, JSON or YAML; -: stdin.",
            show_default=False,
        ),
    ],
    trigger: Annotated[
        int, typer.Option("--trigger", metavar="COUNT", help="Arguments of one run.", show_default=False)
    ],
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="S", help="Run with fewer, S seconds after the first of them."),
    ] = None,
) -> Coroutine[Any, Any, None]:
    """Add a generator. Its nodes have the arguments as {"$packed": ""}, one of them as {"$packed": "0"}.

    Example: colonies generator add --name resize --spec resize.json --trigger 10 --timeout 60
    """
    from colonies.core.names import name as checked_name

    checked_name(name, "--name")
    return _add(here, name, specs.read_work(spec, name), trigger, timeout)


async def _add(here: Here, name: str, spec: WorkflowSpec, trigger: int, timeout: float | None) -> None:
    async with here.client() as client:
        now = await client.add_generator(name, spec, trigger=trigger, timeout_s=timeout)
        _show(here, now, f"generator {name} added")


@command(app, "pack")
def pack(
    here: Here,
    name: _Name,
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="ARG...", help="JSON, or else text; - reads JSON Lines from stdin.", show_default=False
        ),
    ],
) -> Coroutine[Any, Any, None]:
    """Pack arguments, in order. When this returns they are on the ledger, each for exactly one run.

    Put -- before arguments that begin with a dash.

    Example: colonies generator pack resize '{"path": "a.png"}' b.png
    """
    given = _lines() if arguments == ["-"] else [_argument(text) for text in arguments]
    return _pack(here, name, given)


async def _pack(here: Here, name: str, given: list[Any]) -> None:
    async with here.client() as client:
        await client.pack(name, *given)
    if here.output == Output.table:
        output.line(f"{len(given)} argument{'s' if len(given) > 1 else ''} packed for generator {name}")
    elif here.output == Output.json:
        output.json_line({"name": name, "packed": len(given)})
    else:
        output.line(name)


@command(app, "ls", past=True)
async def ls(here: Here) -> None:
    """List the generators, as the ledger has them.

    Example: colonies generator ls -o name
    """
    async with here.client() as client:
        found = await client.generators()
    header = ("NAME", "TRIGGER", "TIMEOUT", "WAITING", "RUNS", "ADDED BY")
    listing.show(here, found, header, _row, id="name", as_object=generator_object)


def _row(now: GeneratorNow) -> tuple[Any, ...]:
    return now.name, now.trigger, _timeout(now), now.waiting, now.runs, now.added_by


@command(app, "get", past=True)
async def get(
    here: Here,
    name: _Name,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=1_000, help="At most the last N runs.")
    ] = 10,
) -> None:
    """Show a generator: the arguments that wait, and its last runs with their states.

    Example: colonies generator get resize -o json
    """
    async with here.client() as client:
        if here.output == Output.name:
            output.line((await client.generator(name)).name)
            return
        await _get(here, client, name, limit)


async def _get(here: Here, client: Client, name: str, limit: int) -> None:
    now = await client.generator(name)
    waiting = await client.waiting_arguments(name)
    runs = await client.generator_runs(name, limit)
    if here.output == Output.json:
        output.json_line(
            {
                **generator_object(now),
                "arguments": waiting,
                "last_runs": [_run_object(run) for run in runs],
                "spec": now.spec.wire(),
            }
        )
        return
    fields = [(key.replace("_", " "), value) for key, value in generator_object(now).items()]
    for text in output.card([*fields, *((f"argument {n}", value) for n, value in enumerate(waiting))]):
        output.line(text)
    if runs:
        output.line()
        output.table(
            ("RUN", "STATE", "ARGUMENTS", "FROM", "WORKFLOW"),
            ((run.run, run.state, run.count, run.first, run.workflow) for run in runs),
        )


@command(app, "rm")
async def rm(
    here: Here,
    name: _Name,
    reason: options.Reason = "",
) -> None:
    """Remove a generator. What it started goes on; the arguments that wait for more never run.

    Example: colonies generator rm resize --reason "not needed"
    """
    async with here.client() as client:
        now = await client.generator(name)
        await client.remove_generator(name, reason)
        _show(here, now, f"generator {name} removed")


def generator_object(now: GeneratorNow) -> dict[str, Any]:
    """`{name, trigger, timeout_s, added_by, added_at, packed, runs, waiting, ends_at}`."""
    from colonies.show import rfc3339

    return {
        "name": now.name,
        "trigger": now.trigger,
        "timeout_s": now.timeout_s,
        "added_by": now.added_by,
        "added_at": rfc3339(now.added_at),
        "packed": now.packed,
        "runs": now.runs,
        "waiting": now.waiting,
        "ends_at": rfc3339(now.ends) if now.ends is not None else None,
    }


def _run_object(run: RunNow) -> dict[str, Any]:
    return {
        "run": run.run,
        "workflow": run.workflow,
        "first": run.first,
        "count": run.count,
        "state": run.state,
    }


def _show(here: Here, now: GeneratorNow, said: str) -> None:
    if here.output == Output.table:
        output.line(said)
    elif here.output == Output.json:
        output.json_line(generator_object(now))
    else:
        output.line(now.name)


def _timeout(now: GeneratorNow) -> str | None:
    return f"{now.timeout_s:g} s" if now.timeout_s is not None else None


# --- what is given -----------------------------------------------------------------------------------


def _argument(text: str) -> Any:
    """JSON, or else text. Raises Invalid for what only looks like JSON, such as a key given twice."""
    import json

    from colonies.core.parsing import json_value

    def no_json(text: str) -> Any:
        raise json.JSONDecodeError("no JSON", text, 0)

    try:
        json.loads(text, parse_constant=no_json)
    except json.JSONDecodeError:
        return text
    except (ValueError, RecursionError):  # json_value says what it is
        pass
    return json_value(text, "an argument", '{"path": "a.png"}')


def _lines() -> list[Any]:
    """The JSON values on stdin, one a line; empty lines are none. Raises Invalid, naming the line."""
    from colonies.core.parsing import json_value
    from colonies.errors import Invalid

    lines = specs.standard_input(MAX_STDIN_BYTES, "pack the rest by another call").split(b"\n")
    found = [
        json_value(line, f"standard input, line {number}", '{"path": "a.png"}')
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not found:
        raise Invalid(
            'standard input: it is empty; allowed: JSON, one value a line, such as {"path": "a.png"}'
        )
    return found
