"""What all commands have in common: where they act, how they print, how they end.

`@command(group, "verb")` makes a function a command: it gets `here` first, and its command line gets
`--context`, `--url`, `--creds` and `-o` beside its own options. If it is or
returns a coroutine, that is run to its end; what blocks (a question, stdin, an import) comes before the
coroutine, where Ctrl-C works.
Modules of commands import nothing heavy at their top, so that `--help` answers at once.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from colonies_cli import exits, logging
from colonies_cli.output import Output

if TYPE_CHECKING:
    from colonies.client import Client
    from colonies.querying import Answer
    from colonies.session import Session

T = TypeVar("T")

SERVICE_WAIT_S = 15.0

_ContextOption = Annotated[
    str | None,
    typer.Option("--context", metavar="NAME", help="The context to act in. [env: COLONIES_CONTEXT]"),
]
_UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The broker, such as nats://host:4222. [env: COLONIES_URL]"),
]
_CredsOption = Annotated[
    str | None,
    typer.Option("--creds", metavar="FILE", help="The credential to log in with. [env: COLONIES_CREDS]"),
]
_OutputOption = Annotated[
    Output,
    typer.Option("-o", "--output", help="For people, as one JSON object per line, or ids only."),
]
_AtOption = Annotated[
    str | None,
    typer.Option("--at", metavar="SEQ|TIME", help="As it was at this sequence, time, or age (10m, 2h, 1d)."),
]


@dataclass(frozen=True, slots=True)
class Here:
    """Where a command acts and how it prints, as its options say. `at`: the moment of the past to show."""

    context: str | None
    url: str | None
    creds: str | None
    output: Output
    at: str | None = None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """This member, logged in; with --at on the ledger as it was. Raises NotFound, Invalid, Unavailable,
        Refused."""
        session = await self._open()
        try:
            yield session
        finally:
            await session.close()
            await session.ledger.close()

    @asynccontextmanager
    async def client(self, *, submits: bool = False) -> AsyncIterator[Client]:
        """A client. Raises as `session`. `submits`: in the trace that the environment names, if it does."""
        from colonies.client import Client

        if submits:
            _enter_trace()
        client = Client(await self._open())
        try:
            yield client
        finally:
            await client.close()

    async def _open(self) -> Session:
        from colonies import imported
        from colonies.connection import open_session
        from colonies.past import PastLedger

        imported.answers = _answered_here
        session = await open_session(context=self.context, url=self.url, creds=self.creds, at=self.at)
        if isinstance(session.ledger, PastLedger):
            exits.say(f"as of {session.ledger.moment}")
        return session

    def check_now(self, option: str, given: object) -> None:
        """Raises Invalid: this option waits for what comes, and nothing comes to the past or an import."""
        if not given:
            return
        from colonies import contexts
        from colonies.errors import Invalid

        if self.at is not None:
            raise Invalid(f"{option}: it waits for what comes, and nothing comes to the past; leave out --at")
        if contexts.resolve(self.context, self.url, self.creds).imported is not None:
            raise Invalid(
                f"{option}: it waits for what comes, and nothing comes to an imported ledger; leave it out"
            )

    async def query(self, view: str, question: dict[str, Any]) -> Answer:
        """As `ask`, over a connection of its own; with --at as it was."""
        async with self.session() as session:
            return await ask(session.ledger, view, question)


async def _answered_here(ledger: Any, subject: str, body: dict[str, Any]) -> dict[str, Any]:
    """Questions about an imported ledger, which no projector follows, are answered by this program."""
    from colonies_projections import offline

    from colonies_cli.ledger import progress

    return await offline.answer(ledger, subject, body, progress("building the views"))


def _enter_trace() -> None:
    """What is submitted from here on belongs to the trace in $TRACEPARENT. What is set by who knows whom
    keeps nobody from submitting: if it is none, that is said."""
    import os

    from colonies import tracing
    from colonies.errors import Invalid

    try:
        found = tracing.of_environment(os.environ)
    except Invalid as error:
        exits.say(f"submitted without a trace: {error}")
        return
    if found is not None:
        tracing.enter(found)


async def ask(ledger: Any, view: str, question: dict[str, Any]) -> Answer:
    """What the projector says, as of all that is on the ledger now; if it is far behind, as of where it is.

    Raises:
        Invalid: the question makes no sense. Unavailable: no projector answers.
    """
    from colonies import querying

    answer = await querying.ask_now(ledger, view, question, waiting=_say_that_we_wait)
    if answer.behind is not None:
        exits.say(f"the projector is behind: this is as of sequence {answer.position} of {answer.behind}")
    if answer.cut:
        exits.say("not all fits into one answer; ask for fewer with --limit")
    return answer


def _say_that_we_wait() -> None:
    """To a person: a program can wait without being told."""
    if sys.stderr is not None and sys.stderr.isatty():
        exits.say("the projector has not answered yet; Ctrl-C stops the waiting")


def command(
    group: typer.Typer, name: str, *, log: str = "warning", past: bool = False, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Make `function(here, ...)` the command `name` of a group. `log` is its usual log level.

    `past`: it has the option --at; it only reads, by `here.session()`, `here.client()` or `here.query()`.
    """

    def register(function: Callable[..., Any]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        own, groups = _unfolded(list(signature.parameters.values())[1:])

        @functools.wraps(function)
        def run(*, context: Any, url: Any, creds: Any, output: Output, at: Any = None, **given: Any) -> None:
            try:
                with exits.said():
                    logging.configure(log)
                    for name, (kind, names) in groups.items():
                        given[name] = kind(**{one: given.pop(one) for one in names})
                    result = function(Here(context, url, creds, output, at), **given)
                    if inspect.iscoroutine(result):
                        run_now(result)
            except exits.Ended as ended:
                raise typer.Exit(ended.code) from None

        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for name, kind, default in (
                *([("at", _AtOption, None)] if past else []),
                ("context", _ContextOption, None),
                ("url", _UrlOption, None),
                ("creds", _CredsOption, None),
                ("output", _OutputOption, Output.table),
            )
        ]
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        parameters = [*own, *shared]
        del run.__wrapped__
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        group.command(name, **options)(run)
        return run

    return register


def _unfolded(
    parameters: Sequence[inspect.Parameter],
) -> tuple[list[inspect.Parameter], dict[str, tuple[Any, list[str]]]]:
    """A function's parameters, and in the place of those that are a dataclass its fields: options that
    several commands have. By its name the class, and the names of these."""
    found: list[inspect.Parameter] = []
    groups: dict[str, tuple[Any, list[str]]] = {}
    for parameter in parameters:
        if dataclasses.is_dataclass(parameter.annotation):
            kind: Any = parameter.annotation
            inner = list(inspect.signature(kind, eval_str=True).parameters.values())
            groups[parameter.name] = kind, [one.name for one in inner]
            found += inner
        else:
            found.append(parameter)
    return found, groups


def confirm(question: str, *, otherwise: str) -> None:
    """Ask on the terminal; ends the command unless the answer is yes.

    Raises Invalid where there is no terminal: `otherwise` says why it must be asked, and --yes answers.
    """
    from colonies.errors import Invalid

    if sys.stdin is None or not sys.stdin.isatty():
        raise Invalid(f"{otherwise}; say --yes")
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        raise KeyboardInterrupt from None
    if not agreed:
        exits.say("nothing was done")
        raise exits.Ended(exits.FAILED)


def group(help: str, *, epilog: str | None = None) -> typer.Typer:
    """A noun: what follows it are its verbs."""
    return typer.Typer(
        help=help,
        epilog=epilog,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
    )


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, on a loop of its own."""
    import asyncio

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(coroutine)


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
