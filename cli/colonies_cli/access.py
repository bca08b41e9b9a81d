"""`colonies member token`: reading over HTTP as a member, without its key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from colonies_cli import exits, joining, output
from colonies_cli.command import Here, command
from colonies_cli.output import Output

if TYPE_CHECKING:
    from pathlib import Path

    from colonies.bearer import Bearer

app = joining.app

DEFAULT_EXPIRES = "1h"


@command(app, "token")
async def token(
    here: Here,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The member's name.", show_default=False)],
    expires: Annotated[
        str,
        typer.Option("--expires", metavar="DURATION", help="It ends after this time: 1s to 30d, such as 8h."),
    ] = DEFAULT_EXPIRES,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="Put it into this file, which only you can read."),
    ] = None,
) -> None:
    """Make a token with which one may read over HTTP what a member may read.

    It is signed with the member's own credential, or by an owner for anybody. Whoever has it may read the
    ledger and ask the views until it ends, or until the member is revoked or changes its key; it is good for
    nothing else. It is printed on stdout, and kept nowhere.

    Example: colonies member token ann --expires 8h
    """
    from colonies import bearer
    from colonies.connection import session_of
    from colonies.core.names import member_name
    from colonies.errors import Invalid
    from colonies.files import expanded
    from colonies_cli import owner

    member_name(name, "NAME")
    if out is None and here.output == Output.name:
        raise Invalid("-o name prints no token, only its id; put the token into a file with --out")
    expires_s = _seconds(expires)
    path = None if out is None else _free(expanded(out, "--out"))
    context = owner.context_of(here)
    credential = owner.own_or_owner(context, name)
    async with session_of(context.url, credential) as session:
        now = await session.ledger.now()
        text, said = bearer.issue(session.colony, credential.keypair, name, expires_s=expires_s, now=now)
        role = session.colony.members[name].role
    _show(here, text, said, role, path)


def _seconds(expires: str) -> int:
    """Raises Invalid."""
    from colonies.bearer import MAX_TOKEN_S
    from colonies.core.units import duration_s
    from colonies.errors import Invalid

    found = duration_s(expires, "--expires")
    if found > MAX_TOKEN_S:
        raise Invalid(f"--expires: a token lasts at most {MAX_TOKEN_S // 86_400}d, not {expires}")
    return found


def _free(path: Path) -> Path:
    from colonies.errors import Invalid

    if path.exists():
        raise Invalid(f"--out {path}: there is a file already; give another place")
    return path


def _show(here: Here, text: str, said: Bearer, role: str, path: Path | None) -> None:
    from colonies.core.members import SECOND
    from colonies.creds import write_secret
    from colonies.show import rfc3339, to_the_second

    if path is not None:
        write_secret(path, f"{text}\n")
    shown: dict[str, Any] = {
        "id": said.jti,
        "member": said.sub,
        "role": role,
        "expires_at": rfc3339(said.exp * SECOND),
    }
    if here.output == Output.json:
        output.json_line({**shown, **({"token": text} if path is None else {"file": str(path)})})
        return
    if here.output == Output.name:
        output.line(said.jti)
        return
    until = f"{said.sub} ({role}), until {to_the_second(said.exp * SECOND)}"
    if path is None:
        output.line(text)
        exits.say(f"this token reads as {until}")
    else:
        output.line(f"a token that reads as {until}: {path}")
