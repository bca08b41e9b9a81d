"""`colonies webhook`: addresses outside of the colony that events are sent to."""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colonies_cli import exits, listing, options, output, specs
from colonies_cli.command import SERVICE_WAIT_S, Here, command, group
from colonies_cli.output import Output

if TYPE_CHECKING:
    from colonies.core.webhooks import Webhook
    from colonies.session import Session

MAX_SECRET_FILE_BYTES = 1_024
TRIES = 5  # of an order that comes too soon after another
TEST_WAIT_S = 20.0  # a receiver has 15 of them

app = group(
    "Have events sent to addresses outside of the colony: CloudEvents, signed, until they are taken.\n\n"
    "Example: colonies webhook add ops https://example.com/hook --events 'process.failed,workflow.*'"
)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The webhook's name.", show_default=False)]


@command(app, "add")
def add(
    here: Here,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.", show_default=False)],
    address: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="Where to send to; --change needs none.", show_default=False),
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(
            "--events", metavar="TYPES", help="Which: process.failed,workflow.* and the like. Default: all."
        ),
    ] = None,
    func: Annotated[
        str | None, typer.Option("--func", metavar="NAME", help="Only of processes of this function.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="TEXT", help="Only of processes with this label.")
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option("--secret", metavar="FILE", help="A file with the secret (whsec_...); -: stdin."),
    ] = None,
    via: Annotated[
        str | None,
        typer.Option("--via", metavar="MEMBER", help="The service that sends, where there are several."),
    ] = None,
    change: Annotated[
        bool, typer.Option("--change", help="It exists: change of it what is given here, and only that.")
    ] = False,
    new_secret: Annotated[bool, typer.Option("--new-secret", help="With --change: a new secret.")] = False,
) -> Coroutine[Any, Any, None]:
    """Have events sent to an address, from now on; owners may.

    The secret that signs what is sent is shown once, here: the receiver checks with it. --change keeps it,
    unless the address or the service is another one. --func '' and --label '' take these away again.

    Example: colonies webhook add ops https://example.com/hook --events process.failed
    """
    from colonies.errors import Invalid
    from colonies.webhooks import checked_filters, checked_url

    if new_secret and (secret is not None or not change):
        raise Invalid("--new-secret: it is for --change, and without --secret")
    if address is None and not change:
        raise Invalid("URL: where to send to is not said; allowed: such as https://example.com/hook")
    said: dict[str, Any] = {
        "url": None if address is None else checked_url(address),
        "events": None if events is None else checked_filters([word.strip() for word in events.split(",")]),
        "func": func,
        "label": label,
        "secret": None if secret is None else _secret(secret),
        "service": via,
    }
    return _change(here, name, said, new_secret) if change else _add(here, name, said)


def _secret(place: str) -> bytes:
    """The secret in a file, or on standard input. Raises Invalid, without showing it."""
    from colonies.errors import Invalid
    from colonies.files import expanded, read_small
    from colonies.webhooks import read_secret

    if place == "-":
        return read_secret(specs.standard_input(MAX_SECRET_FILE_BYTES, "a secret is short").decode("latin-1"))
    try:
        return read_secret(read_small(expanded(place, "--secret"), MAX_SECRET_FILE_BYTES).decode("latin-1"))
    except FileNotFoundError:
        raise Invalid(f"--secret {place}: there is no such file") from None
    except Invalid as error:
        raise Invalid(f"--secret {place}: {error}") from None


async def _add(here: Here, name: str, said: dict[str, Any]) -> None:
    from colonies.webhooks import add_webhook, webhook

    said["events"] = said["events"] or ["*"]
    async with here.session() as session:
        made = await add_webhook(session, name, **said)
        found = await webhook(session, name)
    _show(here, found, "added", made if said["secret"] is None else None)


async def _change(here: Here, name: str, said: dict[str, Any], renew: bool) -> None:
    from colonies.webhooks import change_webhook, webhook

    async with here.session() as session:
        made = await change_webhook(session, name, **said, renew=renew)
        found = await webhook(session, name)
    if made is not None and said["secret"] is None and not renew:
        exits.say("the old secret was for another address or key of the service; there is a new one")
    _show(here, found, "changed", made if said["secret"] is None else None)


def _show(here: Here, found: Webhook, done: str, made: bytes | None) -> None:
    """What there is now; the secret if it was made here."""
    from colonies.webhooks import is_plain, shown_secret

    secret = shown_secret(made) if made is not None else None
    if is_plain(found.url):
        exits.say("what is sent to an http:// address can be read on its way; https:// cannot")
    if here.output == Output.json:
        shown = {"url": found.url, "events": list(found.events), "func": found.func, "label": found.label}
        output.json_line({"name": found.name, **shown, "service": found.service, "secret": secret})
        return
    said = f"webhook {found.name} {done}; {found.service} sends to it"
    output.line(found.name if here.output == Output.name else said)
    if secret is not None and here.output == Output.name:
        exits.say(f"the secret, shown only now: {secret}")
    elif secret is not None:
        output.line(f"secret, shown only now: {secret}")


@command(app, "ls", past=True)
async def ls(here: Here) -> None:
    """List the webhooks, by name, and how it goes with each.

    Example: colonies webhook ls
    """
    from colonies.webhooks import webhooks

    async with here.session() as session:
        items = await _items(here, session, await webhooks(session))
    listing.show(
        here,
        items,
        ("NAME", "STATE", "DELIVERED", "PENDING", "DEAD", "URL"),
        lambda item: [item[field] for field in ("name", "state", "delivered", "pending", "dead", "url")],
        id="name",
        elastic=5,
    )


async def _items(here: Here, session: Session, found: list[Webhook]) -> list[dict[str, Any]]:
    """Each webhook as the ledger has it, with what its service says now; of the past it says nothing."""
    import asyncio

    from colonies.errors import ColoniesError
    from colonies.show import rfc3339
    from colonies.webhook_orders import ask_about
    from colonies.webhooks import unserved

    async def asked(service: str) -> dict[str, Any]:
        if here.at is not None:
            return {}
        try:
            answer = await ask_about(session, service, {}, wait_s=SERVICE_WAIT_S)
        except ColoniesError:
            exits.say(
                f"{service}, which sends to webhooks, does not answer; `colonies dev` runs it, and so does "
                "`colonies server start --only webhooks`"
            )
            return {}
        return {item["name"]: item for item in answer["items"]}

    services = sorted({webhook.service for webhook in found})
    said = dict(zip(services, await asyncio.gather(*map(asked, services)), strict=True))
    now = await session.ledger.now()
    items = []
    for webhook in found:
        item = said[webhook.service].get(webhook.name, {})
        state, error = item.get("state", "unknown" if here.at is None else None), item.get("error")
        if here.at is None and (why := unserved(session.colony, webhook, now)) is not None:
            state, error = (
                "locked",
                f"{why}; say it again: `colonies webhook add {webhook.name} --change`",
            )
            exits.say(f"webhook {webhook.name} is not sent to: {error}")
        items.append(
            {
                "name": webhook.name,
                "state": state,
                "url": webhook.url,
                "events": list(webhook.events),
                "func": webhook.func,
                "label": webhook.label,
                "service": webhook.service,
                "member": webhook.author,
                "added_at": rfc3339(webhook.added_at),
                **{field: item.get(field) for field in _SAID_BY_SERVICE},
                "error": error,
            }
        )
    return items


_SAID_BY_SERVICE = (
    "delivered",
    "delivered_at",
    "pending",
    "dead",
    "dropped",
    "failing_since",
    "held_until",
)


@command(app, "get", past=True)
async def get(here: Here, name: _Name, limit: options.Limit = 20) -> None:
    """Show a webhook, how it goes with it, and its latest dead letters.

    Example: colonies webhook get ops
    """
    from colonies.errors import ColoniesError
    from colonies.webhook_orders import ask_about
    from colonies.webhooks import webhook

    async with here.session() as session:
        found = await webhook(session, name)
        (item,) = await _items(here, session, [found])
        item["dead_letters"] = []
        if here.at is None:
            with suppress(ColoniesError):  # which `_items` has said
                question = {"webhook": name, "dead": limit}
                answer = await ask_about(session, found.service, question, wait_s=SERVICE_WAIT_S)
                item["dead_letters"] = answer["items"][0]["dead_letters"]
    if here.output == Output.name:
        output.line(name)
        return
    if here.output == Output.json:
        output.json_line(item)
        return
    shown = [(field.replace("_", " "), value) for field, value in item.items() if field != "dead_letters"]
    for line in output.card(
        [(field, ", ".join(value) if isinstance(value, list) else value) for field, value in shown]
    ):
        output.line(line)
    if item["dead_letters"]:
        output.line()
        rows = [[letter[field] for field in _LETTER] for letter in item["dead_letters"]]
        output.table(("SEQUENCE", "EVENT", "TRIES", "GIVEN UP", "ERROR"), rows, elastic=4)


_LETTER = ("sequence", "event", "tries", "dead_at", "error")


@command(app, "rm")
async def rm(here: Here, name: _Name, reason: options.Reason = "") -> None:
    """Remove a webhook: nothing more is sent there, nor what is still to be delivered.

    Example: colonies webhook rm ops
    """
    from colonies.webhooks import remove_webhook

    async with here.session() as session:
        await remove_webhook(session, name, reason)
    _said(here, name, f"webhook {name} is removed", {"name": name, "state": "removed"})


@command(app, "test")
async def test(here: Here, name: _Name) -> None:
    """Have a test event sent now, and show what the receiver answers; owners may.

    Example: colonies webhook test ops
    """
    from colonies.webhook_orders import Order

    answer = await _order(here, Order("test", name))
    status, error = answer["status"], answer["error"]
    took = f"in {answer['seconds']:.3f} s"
    shown = {"name": name, **{field: answer[field] for field in ("status", "seconds", "error")}}
    if error is None:
        _said(here, name, f"webhook {name} answered {status} {took}", shown)
        return
    if here.output == Output.json:
        output.json_line(shown)
    exits.say(f"webhook {name}: {error} ({took})")
    raise exits.Ended(exits.FAILED)


@command(app, "rerun")
async def rerun(
    here: Here,
    name: _Name,
    sequences: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="[SEQUENCE...]", help="Only those events; all by default.", show_default=False
        ),
    ] = None,
) -> None:
    """Have dead letters sent again, all of them or some; owners may. A receiver that was gone is back.

    If one that is given is no dead letter, nothing is sent, and the exit code is 5.

    Example: colonies webhook rerun ops
    """
    from colonies.webhook_orders import Order

    answer = await _order(here, Order("rerun", name, tuple(sequences) if sequences else None))
    count = answer["rerun"]
    _said(here, name, f"webhook {name}: {count} dead letters are sent again", {"name": name, "rerun": count})


async def _order(here: Here, order: Any) -> dict[str, Any]:
    """What the service of the webhook says to an order, after a pause if it needs one.

    Raises Unavailable, naming what to start; TooSoon: others go on ordering.
    """
    import asyncio

    from colonies.errors import Unavailable
    from colonies.webhook_orders import MIN_PAUSE_S, TooSoon, give_order
    from colonies.webhooks import webhook

    async with here.session() as session:
        service = (await webhook(session, order.webhook)).service
        try:
            for _ in range(TRIES - 1):
                with suppress(TooSoon):
                    return await give_order(session, service, order, wait_s=TEST_WAIT_S)
                await asyncio.sleep(MIN_PAUSE_S)
            return await give_order(session, service, order, wait_s=TEST_WAIT_S)
        except TooSoon:
            raise
        except Unavailable as error:
            raise Unavailable(
                f"{service}, which sends to this webhook, does not answer ({error}); `colonies dev` runs it, "
                "and so does `colonies server start --only webhooks`"
            ) from None


def _said(here: Here, name: str, text: str, shown: dict[str, Any]) -> None:
    if here.output == Output.table:
        output.line(text)
    elif here.output == Output.name:
        output.line(name)
    else:
        output.json_line(shown)
