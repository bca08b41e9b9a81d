"""All commands of `colonies`, as one tree."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any

import typer

from colonies_cli import (
    access,
    colony,
    context,
    cron,
    dev,
    ending,
    finding,
    function,
    generator,
    ledger,
    log,
    projection,
    query,
    queue,
    server,
    stats,
    webhook,
    worker,
)
from colonies_cli.command import command, group

EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 usage or refused input, 3 the process or workflow failed or was "
    "cancelled, 4 not permitted, 5 not found, 6 unavailable, 130 interrupted."
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"colonies {version('colonies')}")
        raise typer.Exit


@functools.cache
def whole() -> Any:
    """The whole command, as it parses a command line."""
    return typer.main.get_command(build())


def build() -> typer.Typer:
    """The whole command, as typer has it."""
    app = group(
        "Describe work as processes; let workers anywhere run them.\n\n"
        "Example: colonies dev, and in another terminal: colonies process run echo hello --runtimetype cli",
        epilog=EPILOG,
    )

    @app.callback()
    def root(
        version: Annotated[
            bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
        ] = False,
    ) -> None:
        pass

    app.command("dev")(_logged(dev.dev))
    server.app.callback()(_logged(lambda: None))
    groups: tuple[tuple[str, typer.Typer], ...] = (
        ("process", ending.PROCESSES),
        ("workflow", ending.WORKFLOWS),
        ("generator", generator.app),
        ("worker", worker.app),
        ("queue", queue.app),
        ("function", function.app),
        ("cron", cron.app),
        ("webhook", webhook.app),
        ("colony", colony.app),
        ("member", access.app),
        ("context", context.app),
        ("ledger", ledger.app),
        ("finding", finding.app),
        ("log", log.app),
        ("projection", projection.app),
        ("server", server.app),
    )
    for name, sub in groups:
        app.add_typer(sub, name=name)
    command(app, "stats", past=True)(stats.stats)
    command(app, "query", past=True)(query.query)
    return app


def _logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """For what runs until stopped: it says on stderr what it does."""

    @functools.wraps(function)
    def logged(*args: Any, **given: Any) -> Any:
        from colonies_cli import logging

        logging.configure("info")
        return function(*args, **given)

    return logged
