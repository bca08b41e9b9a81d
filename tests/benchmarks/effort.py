"""How much is measured, and how it is told while it goes on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

BATCH = 500
CONCURRENCY = 256
BROKER_CAN = "the bare broker in the same run"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured. `quick` is for a first look; its figures are less steady."""

    processes: int = 2_000
    round_trips: int = 200
    submits: int = 1_000
    rounds: int = 3
    stored: int = 20_000
    kills: int = 5
    signatures: int = 5_000
    sizes: tuple[int, ...] = (10_000, 100_000)  # events
    queues: tuple[int, ...] = (1, 20, 200)
    instances: tuple[int, ...] = (1, 4, 16)
    cold_bytes: int = 192 * 1024 * 1024
    ends: int = 600
    nodes: int = 10_000
    generated: int = 100_000  # processes of a ledger to catch up with
    viewed: int = 100_000  # processes in a view that answers
    crons: int = 1_000
    orchestrators: tuple[int, ...] = (1, 2)
    profile: Path | None = None


LARGE = 1_000_000  # events
QUICK = Effort(
    processes=500,
    round_trips=50,
    submits=200,
    rounds=1,
    stored=2_000,
    kills=1,
    signatures=500,
    sizes=(2_000,),
    queues=(5,),
    instances=(2,),
    cold_bytes=16 * 1024 * 1024,
    ends=60,
    nodes=300,
    generated=2_000,
    viewed=2_000,
    crons=20,
    orchestrators=(1,),
)


def say(text: str) -> None:
    """Progress, to stderr."""
    print(f"  {text}", file=sys.stderr, flush=True)
