"""`python -m tests.benchmarks [NAME...] [--quick] [--profile DIR]`: one JSON line per figure on stdout.

Progress goes to stderr. Ctrl-C ends it at any time and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.actor import quiet_logs, run
from tests.benchmarks.effort import LARGE, QUICK, Effort
from tests.benchmarks.figures import GROUPS, measure


async def _print(names: list[str], effort: Effort) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(NotImplementedError, ValueError):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with contextlib.aclosing(measure(names, effort)) as figures:
        async for figure in figures:
            print(figure.line(), flush=True)


def main() -> int:
    """Exits with 0, 2 for a name that is none, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(GROUPS)}; all if none is given"
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, in about 30 s")
    parser.add_argument(
        "--large",
        action="store_true",
        help=f"also a ledger of {LARGE:,} events and views of as many processes, in half an hour more",
    )
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="leave cProfiles of the parts and of the client"
    )
    given = parser.parse_args()
    for name in given.names:
        if name not in GROUPS:
            parser.error(f"there is no benchmark {name!r}; there are {', '.join(GROUPS)}")
    if given.profile is not None:
        given.profile = given.profile.absolute()
        given.profile.mkdir(parents=True, exist_ok=True)
    quiet_logs()
    effort = replace(QUICK if given.quick else Effort(), profile=given.profile)
    if given.large:
        effort = replace(effort, sizes=(*effort.sizes, LARGE), viewed=LARGE)
    try:
        run(_print(given.names or list(GROUPS), effort), given.profile and str(given.profile / "client.prof"))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
