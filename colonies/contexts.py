"""Contexts: which colony a command means, where its broker is, and who one is there.

A context is a small JSON file in the user's configuration folder. A flag goes before the environment
(`COLONIES_CONTEXT`, `COLONIES_URL`, `COLONIES_CREDS`), the environment before the context in use. A context
names the credential's file and, where its user owns the colony, the folder of the owner's keys; it holds no
secret itself.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import platformdirs

from colonies.core.names import name as checked_name
from colonies.creds import Credential
from colonies.errors import Invalid, NotFound, Refused
from colonies.files import expanded, read_small

SCHEMES = ("nats", "tls", "ws", "wss")
IMPORTED = "file:///"
MAX_CONTEXT_BYTES = 64 * 1024
MAX_URL_CHARS = 2_048


@dataclass(frozen=True, slots=True)
class Context:
    """Where and who. `keys` is the folder of the owner's keys, `members` that of members' credentials.

    The URL of an imported ledger is that of its folder (`file:`), and its credential is "": it is nobody's.
    """

    name: str
    url: str
    creds: str
    keys: str | None = None
    members: str | None = None

    @property
    def imported(self) -> Path | None:
        """The folder of the imported ledger that it is; None: it is a colony's."""
        place = self.url.removeprefix(IMPORTED)
        return Path(url2pathname(f"/{place}")) if place != self.url else None


def config_folder() -> Path:
    """Where contexts are kept (`COLONIES_CONFIG_DIR` moves it)."""
    return Path(os.environ.get("COLONIES_CONFIG_DIR") or platformdirs.user_config_dir("colonies"))


def data_folder() -> Path:
    """Where `colonies dev` keeps keys and ledger (`COLONIES_DATA_DIR` moves it)."""
    return Path(os.environ.get("COLONIES_DATA_DIR") or platformdirs.user_data_dir("colonies"))


def path_of(name: str) -> Path:
    return config_folder() / "contexts" / f"{checked_name(name, 'context')}.json"


def load(name: str) -> Context:
    """A context by its name. Raises NotFound, or Invalid for a broken file."""
    path = path_of(name)
    try:
        data = json.loads(read_small(path, MAX_CONTEXT_BYTES).decode())
    except FileNotFoundError:
        known = ", ".join(names()) or "none yet"
        raise NotFound(
            f"there is no context {name!r} (known: {known}); add it with `colonies context add`"
        ) from None
    except (Invalid, ValueError, RecursionError) as error:
        raise Invalid(f"{path}: {error}; remove it and add the context again") from None
    match data:
        case {"url": str() as url, "creds": str() as creds}:
            keys, members = data.get("keys"), data.get("members")
            return Context(
                name,
                url,
                creds,
                keys if isinstance(keys, str) else None,
                members if isinstance(members, str) else None,
            )
        case _:
            raise Invalid(
                f"{path}: it must be an object with url and creds; remove it and add the context again"
            )


def save(context: Context) -> Path:
    """Write a context; returns its file."""
    data = {key: value for key, value in asdict(context).items() if value is not None and key != "name"}
    path = path_of(context.name)
    _write(path, json.dumps(data, indent=2) + "\n")
    return path


def remove(name: str) -> None:
    """Forget a context. The credential it names stays."""
    path_of(name).unlink(missing_ok=True)
    if in_use() == name:
        (config_folder() / "current").unlink(missing_ok=True)


def names() -> list[str]:
    """All contexts, sorted."""
    return sorted(path.stem for path in (config_folder() / "contexts").glob("*.json"))


def use(name: str) -> None:
    """Make a context the one in use. Raises NotFound."""
    load(name)
    _write(config_folder() / "current", name + "\n")


def in_use() -> str | None:
    """The context in use, or None."""
    try:
        return read_small(config_folder() / "current", MAX_CONTEXT_BYTES).decode().strip() or None
    except (OSError, Invalid, ValueError):
        return None


def checked_url(url: str, where: str) -> str:
    """A broker's URL, if it is one. `where` opens the message. Raises Invalid."""
    if len(url) > MAX_URL_CHARS:
        raise Invalid(f"{where}: it has {len(url)} characters; at most {MAX_URL_CHARS} are allowed")
    try:
        parts = urlsplit(url)
        good = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise Invalid(f"{where} {url}: allowed: {', '.join(SCHEMES)}, such as nats://host:4222")
    return url


def resolve(
    context: str | None = None, url: str | None = None, creds: str | os.PathLike[str] | None = None
) -> Context:
    """What is meant: flags before environment before the context in use.

    Raises:
        NotFound: nothing says which colony is meant.
    """
    given = bool(url)
    url = url or os.environ.get("COLONIES_URL") or None
    creds = str(creds) if creds else os.environ.get("COLONIES_CREDS") or None
    name = context or os.environ.get("COLONIES_CONTEXT") or None
    if name is None and not (url and creds):
        name = in_use() or ("dev" if path_of("dev").exists() else None)
        if name is None:
            raise NotFound(
                "no context is in use: start a colony of your own with `colonies dev`, or add one with "
                "`colonies context add NAME --url nats://HOST:PORT --creds FILE`"
            )
    if url:
        checked_url(url, "--url" if given else "COLONIES_URL")
    if name is None:
        return Context("", url or "", creds or "")
    found = load(name)
    if not url and not creds:
        return found
    # Another broker or another credential: the context's keys need not belong to them.
    same = creds is None
    return Context(
        found.name,
        url or found.url,
        creds or found.creds,
        found.keys if same else None,
        found.members if same else None,
    )


def credential_of(context: Context) -> Credential:
    """The credential that a context names. Raises NotFound, Invalid, and Refused: an import has none."""
    if context.imported is not None:
        raise Refused(
            f"the context {context.name} is an imported ledger: it is only read, and no credential belongs "
            "to it; use a context of the colony itself"
        )
    return Credential.read(expanded(context.creds))


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise Invalid(f"{path} cannot be written: {error.strerror}") from None
