"""What this machine has: cores, memory, disk, graphics processors; for workers that were not told.

Limits of a container (cgroup v2) and of this program's affinity count, not only what is built in. Where a
thing cannot be found out it is left out, and processes that ask for it go elsewhere. Nothing here decides
who gets what.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import structlog
from pydantic import ValidationError

from colonies.core.capacity import Capacity, Device

CGROUP = Path("/sys/fs/cgroup")
VISIBLE = "CUDA_VISIBLE_DEVICES"
MIB = 1024 * 1024
ASK_S = 10.0

_NVIDIA = ("nvidia-smi", "--query-gpu=index,name,memory.total,uuid", "--format=csv,noheader,nounits")
_log = structlog.get_logger("colonies.worker")


def complete(told: Capacity, concurrency: int) -> Capacity:
    """What a worker was told that it has, and for the rest what is found here."""
    found: dict[str, object] = {
        "cpu": cores(),
        "mem": memory_bytes(),
        "storage": storage_bytes(),
        "processes": max(concurrency, round(cores())),
    }
    if "gpus" not in told.model_fields_set:
        found["gpus"] = devices()
    return told.model_copy(update={name: found[name] for name in found.keys() - told.model_fields_set})


def cores() -> float:
    """The cores that this program may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    there = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
    quota, _, period = _cgroup("cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        there = min(there, round(int(quota) / int(period), 3))
    return max(there, 0.001)


def memory_bytes() -> int:
    """The memory that this program may use."""
    import psutil

    there: int = psutil.virtual_memory().total
    limit = _cgroup("memory.max")
    return min(there, int(limit)) if limit.isdigit() and int(limit) else there


def storage_bytes() -> int:
    """What is free where temporary files go."""
    import psutil

    free: int = psutil.disk_usage(tempfile.gettempdir()).free
    return free


def devices() -> list[Device]:
    """The graphics processors that nvidia-smi tells of, if CUDA_VISIBLE_DEVICES does not hide them."""
    found = _told_by_nvidia_smi()
    shown = visible()
    if shown is None:
        return [device for _, device in found]
    chosen: list[Device] = []
    for word in shown:
        one = next((d for uuid, d in found if word == d.id or (word and uuid.startswith(word))), None)
        if one is not None:
            chosen.append(one.model_copy(update={"id": word}))
        elif word.startswith("MIG-"):  # a part of one: nvidia-smi does not say how large
            chosen.append(Device(id=word, name="MIG"))
        else:
            break  # as CUDA does
    return chosen


def visible() -> list[str] | None:
    """The words of CUDA_VISIBLE_DEVICES; None: it is not set, so all are visible."""
    said = os.environ.get(VISIBLE)
    return None if said is None else [word.strip() for word in said.split(",")]


def _told_by_nvidia_smi() -> list[tuple[str, Device]]:
    """(uuid, device) of each."""
    program = shutil.which(_NVIDIA[0])
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, *_NVIDIA[1:]], capture_output=True, text=True, timeout=ASK_S, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
        _log.warning("nvidia-smi does not tell what there is; this worker has no gpus", error=str(error))
        return []
    found: list[tuple[str, Device]] = []
    for row in csv.reader(done.stdout.splitlines(), skipinitialspace=True):
        try:
            index, name, mebibytes, uuid = (word.strip() for word in row)
            mem = int(mebibytes) * MIB if mebibytes.isdigit() else None  # some share the machine's
            found.append((uuid, Device(id=index, name=name, mem=mem)))
        except (ValueError, ValidationError):
            _log.warning("a line of nvidia-smi is not understood", line=", ".join(row)[:200])
    return found


def _cgroup(name: str) -> str:
    """What the innermost cgroup of this program says; "" where there is none."""
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="ascii").rsplit(":", 1)[1].strip().lstrip("/")
        for folder in (CGROUP / own, CGROUP):
            if (folder / name).exists():
                return (folder / name).read_text(encoding="ascii").strip()
    except (OSError, IndexError, UnicodeDecodeError):
        pass
    return ""
