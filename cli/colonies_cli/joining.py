"""`colonies member request`, `approve`, `install` and `rotate`: becoming a member without sharing a key."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colonies_cli import exits, member, output
from colonies_cli.command import Here, command, confirm
from colonies_cli.member import EXPIRES, ROLE, dropped, member_object, seconds_of
from colonies_cli.output import Output

if TYPE_CHECKING:
    from pathlib import Path

    from colonies.contexts import Context
    from colonies.creds import Credential
    from colonies.joining import Approval, Pending, Request

app = member.app

_YES = typer.Option("--yes", help="Do not ask.")


@command(app, "request")
def request(
    here: Here,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The name that you want to have.")],
    role: Annotated[str, ROLE],
    colony: Annotated[
        str | None,
        typer.Option(
            "--colony",
            metavar="KEY",
            help="The colony's key (A...), if you know it: then no other can approve. Default: --context's.",
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="The request. Default: NAME.request.")
    ] = None,
) -> None:
    """Ask to join a colony, with a key made here.

    The key stays on this machine, in a file that only you can read. The request has no secret in it: send it
    to an owner of the colony, who answers with what `colonies member install` takes.

    Example: colonies member request --name w1 --role worker
    """
    from colonies.files import expanded
    from colonies.joining import JoinRequest, Pending
    from colonies.nkeys import KeyPair
    from colonies_cli import owner

    if colony is None and (here.context is not None or here.creds is not None):
        from colonies import contexts

        colony = contexts.credential_of(owner.context_of(here)).colony
    key = KeyPair.new("user")
    asked = JoinRequest.of(name, role, key, colony)
    path = _fresh(expanded(out or f"{name}.request", "--out"))
    _ask(here, Pending(asked, key), path)


def _ask(here: Here, pending: Pending, path: Path) -> None:
    """Keep the key here and put the request into its file."""
    import json

    pending.keep()
    text = pending.request.text()
    _write(path, text)
    if here.output == Output.json:
        fields = {name: value for name, value in json.loads(text).items() if "signature" not in name}
        output.json_line({**fields, "request": str(path)})
    elif here.output == Output.name:
        output.line(str(path))
    else:
        output.line(f"request: {path}")
        exits.say(
            "give it to an owner, who runs `colonies member approve FILE`; then, here: `colonies member "
            "install FILE` with what comes back"
        )


@command(app, "approve")
def approve(
    here: Here,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The request.", show_default=False)],
    expires: Annotated[str | None, EXPIRES] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="The approval. Default: as FILE, ending in .approval."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="It is approved, but the approval got lost: write it again.")
    ] = False,
    yes: Annotated[bool, _YES] = False,
) -> Coroutine[Any, Any, None]:
    """Approve what somebody asks for: to join, or to change a key.

    The ledger says so first. The approval has no secret in it: send it back. Make sure that the request came
    from whom it says: compare the key, by telephone for one. Needs the owner's keys.

    Example: colonies member approve w1.request --expires 12h
    """
    from colonies.errors import Invalid
    from colonies.files import expanded
    from colonies.joining import read_request
    from colonies_cli import owner

    expires_s = seconds_of(expires)
    if again and expires is not None:
        raise Invalid("--expires: the end is on the ledger already; leave it out with --again")
    path = expanded(file, "FILE")
    asked = read_request(path)
    context = owner.context_of(here)
    owner.owner_keys(context, "approving a request")
    owner.owner_credential(context)
    target = expanded(out, "--out") if out else path.with_suffix(".approval")
    exits.say(_described(asked, expires))
    if not yes and not again:
        confirm("Approve it?", otherwise="an approval cannot be undone, only revoked")
    return _approve(here, asked, target, expires_s, again)


async def _approve(here: Here, asked: Request, path: Path, expires_s: int | None, again: bool) -> None:
    from colonies import founding
    from colonies_cli import owner

    async with owner.owner_of(here, "approving a request") as found:
        session, keys, url = found.session, found.keys, owner.context_of(here).url
        if again:
            approval = founding.approval_of(session, keys, asked, url=url)
            _fresh(path)
        else:
            founding.check_request(session.colony, asked)
            _fresh(path)
            approval = await founding.approve(session, keys, asked, url=url, expires_s=expires_s)
        made = session.colony.members[asked.name]
        now = await session.ledger.now()
    _write(path, approval.text(), hint="it is approved; write the approval again with --again --out FILE")
    if here.output == Output.json:
        output.json_line({**member_object(made, now), "approval": str(path)})
    elif here.output == Output.name:
        output.line(made.name)
    else:
        output.line(f"{made.name} has the role {made.role} in {approval.colony_name}; approval: {path}")
        exits.say("give it to the newcomer, who runs `colonies member install FILE`")


def _described(asked: Request, expires: str | None) -> str:
    from colonies.joining import JoinRequest

    until = f", for {expires}" if expires is not None else ""
    if isinstance(asked, JoinRequest):
        return f"{asked.name} asks to join as {asked.role}{until}, with the key {asked.key}"
    return f"{asked.name} asks to change its key{until}, from {asked.former} to {asked.key}"


@command(app, "install")
def install(
    here: Here,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The approval.", show_default=False)],
) -> None:
    """Install what the owner gave back, on the machine that asked.

    Makes the credential, a standard .creds file, and a context named as the member, or as --context says.
    --url says where the broker is, if it is elsewhere for you than the approval has it. For a changed key,
    the credential that holds the former one is replaced.

    Example: colonies member install w1.approval
    """
    from colonies.files import expanded
    from colonies.joining import Pending, read_approval

    approval = read_approval(expanded(file, "FILE"))
    pending = Pending.find(approval.key)
    credential = _answering(pending.request, approval.credential(pending.key))
    if pending.creds is not None:
        context, path = None, pending.creds
        credential.write(path)
    else:
        context = _context(here, approval, credential)
        path = expanded(context.creds)
        _save(context, credential)
    pending.forget()
    installed = {
        "name": credential.name,
        "role": credential.role,
        "key": credential.keypair.public,
        "creds": str(path),
        "context": context.name if context is not None else None,
        "url": context.url if context is not None else None,
    }
    if here.output == Output.json:
        output.json_line(installed)
    elif here.output == Output.name:
        output.line(credential.name)
    elif context is None:
        output.line(f"{credential.name} has its new key; credential: {path}")
    else:
        output.line(
            f"{credential.name} has the role {credential.role} in {approval.colony_name}; "
            f"context: {context.name}, credential: {path}"
        )


def _answering(asked: Request, credential: Credential) -> Credential:
    """The credential, if it is what was asked for. Raises Invalid."""
    from colonies.errors import Invalid
    from colonies.joining import JoinRequest

    role = asked.role if isinstance(asked, JoinRequest) else credential.role
    given = (credential.name, credential.role, credential.colony)
    for what, wanted, got in zip(
        ("name", "role", "colony"), (asked.name, role, asked.colony or credential.colony), given, strict=True
    ):
        if wanted != got:
            raise Invalid(
                f"this approval is for the {what} {got}, asked for was {wanted}; nothing was installed. "
                "Ask the owner for the right one"
            )
    return credential


def _context(here: Here, approval: Approval, credential: Credential) -> Context:
    """The context to be made. Raises Invalid if there is one of that name."""
    from colonies import contexts
    from colonies.core.names import name as checked
    from colonies.errors import Invalid

    name = checked(here.context or credential.name, "--context")
    creds = contexts.data_folder() / "members" / name / f"{credential.name}.creds"
    url = contexts.checked_url(here.url, "--url") if here.url is not None else approval.url
    context = contexts.Context(name, url, str(creds))
    if contexts.path_of(name).exists() and contexts.load(name) != context:
        raise Invalid(f"there is a context {name} already; name another with --context NAME")
    return context


def _save(context: Context, credential: Credential) -> None:
    from pathlib import Path

    from colonies import contexts

    credential.write(Path(context.creds))
    contexts.save(context)
    if contexts.in_use() is None:
        contexts.use(context.name)


@command(app, "rotate")
async def rotate(
    here: Here,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Another member, whose credential lies here. Default: yourself.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FILE", help="The request, where one is needed. Default: NAME.request."
        ),
    ] = None,
) -> None:
    """Change your key.

    What was said under the former key stays valid; from now on only the new one counts. Where the context
    holds the owner's keys it is done at once. Elsewhere this writes a request: the owner approves it, and
    `colonies member install` puts the new key in place. A running worker goes on by itself where the
    credential is replaced at once; elsewhere it ends, and says so: install, and start it again.

    Example: colonies member rotate
    """
    from colonies import contexts
    from colonies.errors import Refused
    from colonies.files import expanded
    from colonies.joining import ChangeRequest, Pending
    from colonies.nkeys import KeyPair
    from colonies_cli import owner

    context = owner.context_of(here)
    if context.keys is not None:
        await _rotate(here, context, name)
        return
    credential = contexts.credential_of(context)
    if name not in (None, credential.name):
        raise Refused(
            f"{credential.name} can change its own key only, and this context does not hold the owner's "
            f"keys; {name} itself runs `colonies member rotate`"
        )
    key = KeyPair.new("user")
    path = _fresh(expanded(out or f"{credential.name}.request", "--out"))
    _ask(here, Pending(ChangeRequest.of(credential, key), key, expanded(context.creds)), path)


async def _rotate(here: Here, context: Context, name: str | None) -> None:
    from colonies import rotation
    from colonies.connection import session_of
    from colonies.core.names import member_name
    from colonies.creds import Credential
    from colonies.files import expanded
    from colonies_cli import owner

    path = expanded(context.creds)
    if name is not None:
        path = owner.members_of(context) / f"{member_name(name, 'NAME')}.creds"
    former = Credential.read(path)
    async with owner.owner_of(here, "changing a key") as found:
        fresh = await rotation.rotate(found.session, found.keys, context.url, path)
    async with session_of(context.url, fresh) as session:
        changed = session.colony.members[fresh.name]
        now = await session.ledger.now()
    if here.output == Output.json:
        output.json_line({**member_object(changed, now), "creds": str(path)})
    elif here.output == Output.name:
        output.line(changed.name)
    else:
        output.line(f"{changed.name} has a new key, {changed.key}; credential: {path}")
    exits.say(await dropped(context, former))


def _fresh(path: Path) -> Path:
    """`path`, if a file can be made there. Raises Invalid."""
    import os

    from colonies.errors import Invalid

    if path.exists():
        raise Invalid(f"{path}: there is a file already; name another with --out FILE")
    if not os.access(path.parent, os.W_OK):
        raise Invalid(f"{path} cannot be written; name another place with --out FILE")
    return path


def _write(path: Path, text: str, *, hint: str = "name another with --out FILE") -> None:
    """Make a file that may be read by others. Raises Invalid."""
    from colonies.errors import Invalid

    try:
        with path.open("x", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise Invalid(f"{path} cannot be written: {error.strerror}; {hint}") from None
