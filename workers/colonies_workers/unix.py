"""The Unix worker: a process's `func` is a shell command, its standard output is its result.

How a command is run, and that nothing of it is left behind, is `colonies_workers.command`. Here it meets the
life of a process: its output goes to the worker's terminal and to the process's log, and its end becomes the
attempt's. What a spec asks to run is run with this worker's rights: take processes from people you trust.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import platformdirs

from colonies import tracing
from colonies.core.capacity import Capacity
from colonies.errors import Unavailable
from colonies.execution import NotHere, Work
from colonies.machine import VISIBLE
from colonies.reaper import Reaper
from colonies.worker import Worker
from colonies_workers.child import Stream
from colonies_workers.command import OUTPUT_BYTES_MAX, run_unix


class UnixWorker(Worker):
    """A worker whose functions are Unix commands. `folder` takes the processes' working folders."""

    def __init__(
        self,
        runtimetype: str = "cli",
        *,
        concurrency: int | None = None,
        folder: Path | None = None,
        max_output_bytes: int = OUTPUT_BYTES_MAX,
        show: bool = True,
        backoff_s: float = 1.0,
        has: Capacity | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(runtimetype, concurrency=concurrency, backoff_s=backoff_s, has=has)
        self.folder = folder or Path(platformdirs.user_cache_dir("colonies")) / "work"
        self.max_output_bytes = max_output_bytes
        self.show = show
        self._reaper: Reaper | None = None

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with Reaper() as reaper:
            self._reaper = reaper
            yield

    async def execute(self, work: Work) -> Any:
        assert self._reaper is not None
        attempt = work.attempt

        def on_output(stream: Stream, text: str) -> None:
            attempt.log(text, stream)
            if self.show:
                terminal = sys.stdout if stream == "stdout" else sys.stderr
                terminal.write(text)
                terminal.flush()

        # Who asked for none sees none, and nobody chooses his own; nvidia-smi counts by the bus.
        env = {**work.spec.env, VISIBLE: ",".join(attempt.devices), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        if tracing.PARENT not in env:
            env.update(tracing.variables(attempt.trace))
        try:
            return await run_unix(
                work.spec.func,
                work.args,
                work.kwargs,
                env,
                process=attempt.process,
                attempt=attempt.n,
                inputs=work.inputs,
                base=self.folder,
                reaper=self._reaper,
                on_output=on_output,
                max_output_bytes=self.max_output_bytes,
                on_adds=attempt.add_text,
            )
        except Unavailable as error:
            raise NotHere(str(error)) from error
