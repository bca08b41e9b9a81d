"""What a worker has, and whether that meets what a process asks for.

`Capacity` is what an instance declares when it starts. `misses` says which conditions a worker does not meet,
in words for people; `serves` that it meets all. What runs is taken out of a `Pool`, so that processes that
run together never have more than there is. Pure: what a machine really has is found elsewhere.

A process needs what its queue says: its sizes rounded up to the next step of a ladder (`units.rung`). So all
of a queue need the same, and whoever serves a queue can run whatever waits in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor
from typing import Annotated, ClassVar, Final

from pydantic import Field

from colonies.core import names, units
from colonies.core.parsing import parsed
from colonies.core.spec import (
    COUNT,
    MAX_ENTRIES,
    Conditions,
    Cores,
    Count,
    Gpu,
    LabelValue,
    Name,
    Seconds,
    Size,
    Text,
)
from colonies.core.words import Words

MAX_DEVICES: Final = 1_000
_WORD: Final = re.compile(r"[a-z0-9]+")


class Device(Words):
    """One graphics processor. `id` is what CUDA_VISIBLE_DEVICES calls it, `mem` its memory in bytes."""

    EXAMPLE: ClassVar[str] = '{"id": "0", "name": "A100", "mem": "40GB"}'

    id: Name = Field(description=names.NAME_ALLOWED)
    name: Text = Field(default="gpu", description="text, such as A100")
    mem: Size = Field(default=None, description=units.SIZES)


class Capacity(Words):
    """What one instance of a worker has to give to all that it runs at a time; `cpu` in cores.

    `nodes` is only compared: processes share nodes as they share a machine. `processes` counts what they
    start (ranks), `walltime` is how long the instance will be there, in seconds from its start.
    """

    EXAMPLE: ClassVar[str] = '{"cpu": 8, "mem": "64GB"}'

    cpu: Cores = Field(default=None, description='cores, a number above 0, or millicores such as "500m"')
    mem: Size = Field(default=None, description=units.SIZES)
    storage: Size = Field(default=None, description=units.SIZES)
    gpus: Annotated[list[Device], Field(max_length=MAX_DEVICES)] = Field(
        default_factory=list, description=f"a list of at most {MAX_DEVICES} devices, such as {Device.EXAMPLE}"
    )
    nodes: Count = Field(default=1, description=COUNT)
    processes: Count = Field(default=1, description=COUNT)
    walltime: Seconds = Field(default=None, description="seconds; nothing: no limit")
    location: Text | None = Field(default=None, description="text, such as ice-lab")
    labels: Annotated[dict[Text, LabelValue], Field(max_length=MAX_ENTRIES)] = Field(
        default_factory=dict, description="an object of names and values"
    )

    @classmethod
    def parse(cls, data: object, *, where: str = "capacity") -> Capacity:
        """The capacity that `data` means, or `Invalid`."""
        return parsed(cls, data, where)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker as conditions see it."""

    name: str
    runtimetype: str
    has: Capacity


def serves(conditions: Conditions, worker: Candidate) -> bool:
    """Whether the worker can run what waits in a queue with these conditions when nothing else runs."""
    return not misses(conditions, worker)


def misses(conditions: Conditions, worker: Candidate) -> list[str]:
    """Which conditions of a queue the worker does not meet, each as `mem: 64GB needed, 16GB there`."""
    has = worker.has
    found: list[str] = []

    def compare(field: str, needed: object, there: object) -> None:
        found.append(f"{field}: {needed} needed, {there} there")

    if conditions.runtimetype != worker.runtimetype:
        compare("runtimetype", conditions.runtimetype, worker.runtimetype)
    if conditions.workernames and worker.name not in conditions.workernames:
        compare("workernames", " or ".join(conditions.workernames[:3]), worker.name)
    if conditions.location not in (None, has.location):
        compare("location", conditions.location, has.location or "none")
    for label, value in conditions.labels.items():
        if has.labels.get(label) != value:
            compare(f"labels.{label}", value or '""', has.labels.get(label, "none"))
    if _needed(conditions.cpu) > _there(has.cpu):
        compare("cpu", f"{conditions.cpu:g}", f"{has.cpu or 0:g}")
    for field in ("mem", "storage"):
        needed, there = getattr(conditions, field), getattr(has, field)
        if (needed or 0) > (there or 0):
            compare(field, units.text(needed), units.text(there or 0))
    if (gpu := conditions.gpu) is not None and len(matching := _matching(gpu, has.gpus)) < gpu.count:
        compare("gpu", _said(gpu), len(matching))
    for field in ("nodes", "processes"):
        if getattr(conditions, field) > getattr(has, field):
            compare(field, getattr(conditions, field), getattr(has, field))
    if has.walltime is not None and (conditions.walltime or 0.0) > has.walltime:
        compare("walltime", f"{conditions.walltime:g} s", f"{has.walltime:g} s")
    return found


@dataclass(frozen=True, slots=True)
class Share:
    """What one running process has of its worker: millicores, bytes, ranks, and its devices."""

    cpu: int
    mem: int
    storage: int
    processes: int
    devices: tuple[Device, ...]


class Pool:
    """What a worker has left while some of it is in use."""

    def __init__(self, has: Capacity) -> None:
        self._cpu = _there(has.cpu)
        self._mem = has.mem or 0
        self._storage = has.storage or 0
        self._processes = has.processes
        self._devices = list(has.gpus)

    def room(self, conditions: Conditions, most: int) -> int:
        """How many processes of a queue with these conditions fit now, at most `most`."""
        limits = [most, self._processes // conditions.processes]
        if conditions.cpu is not None:
            limits.append(self._cpu // _needed(conditions.cpu))
        for needed, left in ((conditions.mem, self._mem), (conditions.storage, self._storage)):
            if needed is not None:
                limits.append(left // needed)
        if (gpu := conditions.gpu) is not None:
            limits.append(len(_matching(gpu, self._devices)) // gpu.count)
        return max(0, min(limits))

    def take(self, conditions: Conditions) -> Share | None:
        """Take out what one process of such a queue needs; None, and nothing is taken, if it is not there.

        Of the devices that will do it takes the smallest, so that the large ones stay for who needs them.
        """
        devices: tuple[Device, ...] = ()
        if (gpu := conditions.gpu) is not None:
            found = sorted(_matching(gpu, self._devices), key=lambda device: device.mem or 0)
            if len(found) < gpu.count:
                return None
            devices = tuple(found[: gpu.count])
        share = Share(
            _needed(conditions.cpu),
            conditions.mem or 0,
            conditions.storage or 0,
            conditions.processes,
            devices,
        )
        left = (self._cpu, self._mem, self._storage, self._processes)
        if any(n > there for n, there in zip(_amounts(share), left, strict=True)):
            return None
        self._move(share, -1)
        for device in devices:
            self._devices.remove(device)
        return share

    def give_back(self, share: Share) -> None:
        """What a process had is there again."""
        self._move(share, 1)
        self._devices += share.devices

    def _move(self, share: Share, sign: int) -> None:
        self._cpu += sign * share.cpu
        self._mem += sign * share.mem
        self._storage += sign * share.storage
        self._processes += sign * share.processes


def _amounts(share: Share) -> tuple[int, int, int, int]:
    return share.cpu, share.mem, share.storage, share.processes


def _needed(cores: float | None) -> int:
    """Millicores, rounded up: whoever asks for some gets one at least."""
    return 0 if cores is None else max(1, ceil(round(cores * 1_000, 6)))


def _there(cores: float | None) -> int:
    return floor(round((cores or 0.0) * 1_000, 6))


def _matching(gpu: Gpu, devices: Iterable[Device]) -> list[Device]:
    """The devices that will do: a name is asked for as a whole or by some of its words in a row."""
    return [
        device
        for device in devices
        if (gpu.name is None or _names(gpu.name, device.name)) and (gpu.mem or 0) <= (device.mem or 0)
    ]


@lru_cache(maxsize=4_096)
def _names(asked: str, name: str) -> bool:
    wanted, words = _WORD.findall(asked.lower()), _WORD.findall(name.lower())
    if asked.lower() == name.lower():
        return True
    return bool(wanted) and any(words[i : i + len(wanted)] == wanted for i in range(len(words)))


def _said(gpu: Gpu) -> str:
    name = f" {gpu.name}" if gpu.name else ""
    mem = f" of {units.text(gpu.mem)}" if gpu.mem else ""
    return f"{gpu.count}{name}{mem}"
