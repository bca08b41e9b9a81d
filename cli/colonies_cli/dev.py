"""`colonies dev`: a colony of one's own on this machine, with one command."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

if TYPE_CHECKING:
    from colonies.contexts import Context

_LEASE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0}


def lease_s(text: str) -> float:
    """The seconds that a lease such as `2s`, `1m` or `10` means. Raises Invalid, saying what is allowed."""
    from colonies.core.events import MAX_LEASE_S, MIN_LEASE_S
    from colonies.errors import Invalid

    found = _LEASE.fullmatch(text.strip())
    seconds = float(found[1]) * _UNIT_S[found[2] or "s"] if found else -1.0
    if not MIN_LEASE_S <= seconds <= MAX_LEASE_S:
        raise Invalid(
            f"--lease {text}: give a duration from {MIN_LEASE_S:g}s to {MAX_LEASE_S / 3600:g}h, "
            "such as 2s or 1m"
        )
    return seconds


def dev(
    dir: Annotated[
        Path | None, typer.Option("--dir", help="Where keys and ledger are kept. Default: your data folder.")
    ] = None,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Keep nothing: a temporary folder, removed at the end.")
    ] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="TCP port on 127.0.0.1; 0: any free one.")
    ] = 4222,
    lease: Annotated[
        str | None,
        typer.Option(
            "--lease",
            help="How long an attempt may go without a sign of life: 2s and up. Default: the colony's own, "
            "which is 10s at first.",
        ),
    ] = None,
    sync: Annotated[
        str,
        typer.Option(
            "--sync",
            help="How old an event may be that a power cut can still lose: 'always' loses none and is "
            "slower, else a duration such as 10s.",
        ),
    ] = "2m",
    http_port: Annotated[
        int | None,
        typer.Option(
            "--http-port",
            min=0,
            max=65_535,
            help="TCP port of HTTP on 127.0.0.1; 0: any free one. Default: 4280, or any if that is taken.",
        ),
    ] = None,
) -> None:
    """Run a colony of your own: broker, ledger and services, on this machine only.

    Prints one line that begins with "ready" once all is up, and writes the context "dev", which the other
    commands then use. If that leads to another colony that runs, it stays, and this one gets a context of
    its own, with its folder's name. Ctrl-C stops it (exit code 0); the next start goes on with the same
    ledger.

    Example: colonies dev --lease 2s
    """
    from colonies import contexts
    from colonies.errors import Invalid
    from colonies.files import expanded
    from colonies_cli import home
    from colonies_cli.advertising import Advertised
    from colonies_cli.services import check_endpoint, run_until_stopped

    if dir is not None and ephemeral:
        raise Invalid("--dir keeps a folder and --ephemeral keeps none: give one of them")
    check_endpoint()
    settings = home.Settings(port, None if lease is None else lease_s(lease), sync, http_port)
    with contextlib.ExitStack() as stack:
        if ephemeral:
            folder = stack.enter_context(home.temporary())
            os.environ["COLONIES_DATA_DIR"] = str(folder)  # what the services remember goes with it
        else:
            folder = expanded(str(dir or contexts.data_folder() / "dev"), "--dir")
        advertised = Advertised(take_back=ephemeral)
        run_until_stopped(
            lambda: home.serve(folder, settings, advertised, lambda c, http: _ready(c, folder, http))
        )


def _ready(context: Context, folder: Path, http: str) -> None:
    """The line that scripts wait for on stdout, and for people, on stderr, what to do next."""
    import shlex
    import sys

    from colonies import contexts

    name = context.name
    in_use = contexts.in_use() or "dev"
    if in_use != name:
        _put(
            f"The context of this colony is {name}; the one in use is {in_use}: say --context {name}, or "
            f"`colonies context use {name}`.\n",
            sys.stderr,
        )
    _put(
        f"ready {context.url} colony=dev context={name} folder={shlex.quote(str(folder))} http={http}\n",
        sys.stdout,
    )
    if in_use == name and sys.stderr.isatty():
        _put(
            f"The context {name} is in use. In other terminals:\n"
            "    colonies process submit --spec sayhello.json\n"
            "    colonies worker start --name testworker --runtimetype cli\n"
            "Ctrl-C stops this one.\n",
            sys.stderr,
        )


def _put(text: str, stream: TextIO) -> None:
    """Write all of it at once. A terminal that was closed meanwhile is no error: SIGHUP is on its way."""
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
