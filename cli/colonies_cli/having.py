"""What a worker is told that it has: options on the command line, and a TOML file behind them."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from colonies.core.capacity import Capacity

MAX_CONFIG_BYTES = 1_048_576

Cpu = Annotated[
    str | None, typer.Option("--cpu", metavar="CORES", help="Cores it has to give: 4, 0.5 or 500m.")
]
Mem = Annotated[str | None, typer.Option("--mem", metavar="SIZE", help="Memory it has to give: 16GB, 512Mi.")]
Storage = Annotated[str | None, typer.Option("--storage", metavar="SIZE", help="Disk space it has to give.")]
Gpu = Annotated[
    list[str] | None,
    typer.Option(
        "--gpu",
        metavar="GPU",
        help="A graphics processor: A100, A100:40GB, 2xA100:40GB for two, or 3=A100 for the device 3; else "
        "numbered as given. Or none. Again for more.",
    ),
]
Nodes = Annotated[
    int | None, typer.Option("--nodes", metavar="N", min=1, help="Nodes a process may span. Default: 1.")
]
Processes = Annotated[
    int | None,
    typer.Option("--processes", metavar="N", min=1, help="Ranks that may run at a time, of all together."),
]
Walltime = Annotated[
    float | None,
    typer.Option("--walltime", metavar="S", min=1, help="Seconds that this worker will be there."),
]
Location = Annotated[
    str | None, typer.Option("--location", metavar="PLACE", help="Where it is, for conditions.location.")
]
Label = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help="A label, for conditions.labels. Again for more."),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="A TOML file that says any of these; an option says it over."
    ),
]

_GPU = re.compile(r"(?:([A-Za-z0-9_-]{1,64})=)?(?:([1-9][0-9]{0,2})x)?([^:=]+)(?::([^:=]+))?")
_COUNTED = re.compile(r"[0-9]+x")
_GPU_ALLOWED = "A100, A100:40GB, 2xA100:40GB (1 to 999), 3=A100:40GB for the device 3, or none"
_OWN = ("name", "runtimetype", "concurrency")


@dataclass(frozen=True, slots=True)
class Given:
    """The options as they were given; None: not at all."""

    name: str | None = None
    runtimetype: str | None = None
    concurrency: int | None = None
    cpu: str | None = None
    mem: str | None = None
    storage: str | None = None
    gpus: list[str] | None = None
    nodes: int | None = None
    processes: int | None = None
    walltime: float | None = None
    location: str | None = None
    labels: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """The same once it makes sense. `has` holds only what was said."""

    name: str | None
    runtimetype: str | None
    concurrency: int | None
    has: Capacity


def said(given: Given, config: Path | None) -> Said:
    """What options and file say together; an option goes before the file. Raises Invalid, naming which."""
    from colonies.core.capacity import Capacity
    from colonies.core.names import member_name
    from colonies.core.names import name as checked

    read = {} if config is None else _read(config)
    name, runtimetype, concurrency = (read.pop(word, None) for word in _OWN)
    has_in_file = Capacity.parse(_plain(read, f"{config}: "), where=str(config))
    in_file = Said(name, runtimetype, concurrency, has_in_file)
    if in_file.name is not None:
        member_name(in_file.name, f"{config}: name")
    if in_file.runtimetype is not None:
        checked(in_file.runtimetype, f"{config}: runtimetype")
    _check_concurrency(in_file.concurrency, f"{config}: concurrency")
    options = {word: value for word, value in asdict(given).items() if value is not None and word not in _OWN}
    if given.labels is not None:
        options["labels"] = _labels(given.labels)
    has = Capacity.parse(_plain(options, "--"), where="options")
    both = {field: getattr(part, field) for part in (in_file.has, has) for field in part.model_fields_set}
    return Said(
        given.name or in_file.name,
        given.runtimetype or in_file.runtimetype,
        given.concurrency or in_file.concurrency,
        Capacity.model_construct(_fields_set=set(both), **both),
    )


def _plain(words: dict[str, Any], where: str) -> dict[str, Any]:
    """As `Capacity.parse` takes it: devices numbered in their order, cores and times as floats."""
    plain = dict(words)
    if "gpus" in plain:
        plain["gpus"] = _devices(plain["gpus"], where)
    cores = plain.get("cpu")
    if isinstance(cores, str) and re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,3})?", cores):
        plain["cpu"] = float(cores)
    for field in ("cpu", "walltime"):
        if isinstance(plain.get(field), int) and not isinstance(plain[field], bool):
            plain[field] = float(plain[field])
    return plain


def _labels(given: list[str]) -> dict[str, str]:
    """The labels in options of the form NAME=VALUE."""
    from colonies.errors import Invalid

    pairs = [label.partition("=") for label in given]
    wrong = next((name for name, equals, _ in pairs if not equals), None)
    if wrong is not None:
        raise Invalid(f"--label: {wrong!r} has no value; allowed: NAME=VALUE")
    labels = {name: value for name, _, value in pairs}
    if len(labels) < len(pairs):
        raise Invalid("--label: a label is given twice; allowed: each name once")
    return labels


def _devices(said: object, where: str) -> list[dict[str, Any]]:
    from colonies.errors import Invalid

    if said == ["none"] or said == "none":
        return []
    if not isinstance(said, list):
        raise Invalid(f"{where}gpus: {said!r} is not a list; allowed: a list of {_GPU_ALLOWED}")
    found: list[dict[str, Any]] = []
    for one in said:
        match = _GPU.fullmatch(one) if isinstance(one, str) else None
        if match is None or one == "none" or _COUNTED.match(match[3]) or (match[1] and match[2]):
            raise Invalid(f"{where}gpu: {one!r} is not one; allowed: {_GPU_ALLOWED}")
        id, count, name, mem = match.groups()
        about = {"name": name} | ({"mem": mem} if mem else {})
        place = len(found)
        found += [{"id": id or _id_of(place + n), **about} for n in range(int(count or 1))]
    ids = [device["id"] for device in found]
    twice = next((id for id in ids if ids.count(id) > 1), None)
    if twice is not None:
        raise Invalid(f"{where}gpu: the device {twice} is given twice")
    return found


def _id_of(place: int) -> str:
    """What CUDA calls the device that is given in this place: the visible ones count, if some are hidden."""
    from colonies.machine import visible

    shown = visible() or []
    return shown[place] if place < len(shown) else str(place)


def _read(config: Path) -> dict[str, Any]:
    import tomllib

    from colonies.errors import Invalid
    from colonies.files import read_small

    try:
        return tomllib.loads(read_small(config, MAX_CONFIG_BYTES).decode())
    except FileNotFoundError:
        raise Invalid(f"{config}: there is no such file; allowed: the path of a TOML file") from None
    except Invalid as error:
        raise Invalid(f"{config}: {error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"{config}: not TOML: {error}") from None


def _check_concurrency(value: object, where: str) -> None:
    from colonies.core.events import MAX_CONCURRENCY
    from colonies.errors import Invalid

    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (whole and 1 <= int(str(value)) <= MAX_CONCURRENCY):
        raise Invalid(f"{where}: {value!r}; allowed: a whole number from 1 to {MAX_CONCURRENCY}")
