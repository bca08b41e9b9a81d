"""Where the server listens: an address, perhaps TLS, and the names under which it may be asked.

The port is bound once, before anything else starts, and kept while the service restarts: nobody else gets
it in between, and a port that is taken is said at once. Without TLS only this machine is let in, unless
`insecure` says otherwise: tokens would go over the network for all to read.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from colonies.core.names import shown
from colonies.errors import Invalid, Unavailable
from colonies.server import port_holder

DEFAULT_PORT: Final = 4280
BACKLOG: Final = 128
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen. `port` 0: any free one. `names`: hosts under which it may be asked beside its own.

    `certificate` and `key` are PEM files; both or neither.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False
    names: tuple[str, ...] = ()

    @property
    def loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback


def address(text: str) -> tuple[str, int]:
    """The IP address and port in `127.0.0.1:8080`, `[::1]:8080` or `localhost:0`. Raises Invalid."""
    found = _ADDRESS.fullmatch(text)
    host = (found["v6"] or found["host"]) if found else ""
    host = "127.0.0.1" if host == "localhost" else host
    try:
        good = ipaddress.ip_address(host)
    except ValueError:
        good = None
    if found is None or good is None or int(found["port"]) > 65_535:
        raise Invalid(
            f"--listen {shown(text)}: allowed: an IP address or localhost, and a port, such as "
            f"127.0.0.1:{DEFAULT_PORT}, [::1]:0 or, with TLS, 0.0.0.0:443; port 0 is any free one"
        )
    return str(good), int(found["port"])


def host_name(text: str) -> str:
    """A name under which it may be asked. Raises Invalid."""
    if not _NAME.fullmatch(text):
        raise Invalid(
            f"--host {shown(text)}: allowed: a host's name without a port, such as colonies.example"
        )
    return text.lower()


class Door:
    """A bound port. `url` is where to ask; it stays bound until the block ends."""

    def __init__(self, listen: Listen, bound: socket.socket, tls: ssl.SSLContext | None) -> None:
        self.listen = listen
        self.tls = tls
        self.port: int = bound.getsockname()[1]
        self._bound = bound

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._bound.close()

    def socket(self) -> socket.socket:
        """The port once more, for a server that closes it at its end."""
        return self._bound.dup()

    @property
    def url(self) -> str:
        """Where to ask it from this machine; where it listens everywhere, by loopback."""
        host = ipaddress.ip_address(self.listen.host)
        if host.is_unspecified:
            host = ipaddress.ip_address("127.0.0.1" if host.version == 4 else "::1")
        shown = f"[{host}]" if host.version == 6 else str(host)
        return f"http{'s' if self.tls else ''}://{shown}:{self.port}"

    def admits(self, host: str) -> bool:
        """May it be asked under what a Host header says?

        On loopback only under names of this machine: a web page whose name was made to lead here (DNS
        rebinding) is not one of them. Elsewhere under any, unless names are given.
        """
        name = host.lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        if name in self.listen.names:
            return True
        if self.listen.loopback:
            return name in (*LOOPBACK_NAMES, self.listen.host)
        return bool(name) and not self.listen.names


def open_door(listen: Listen, *, elsewhere: bool = False, free: str = "--listen 127.0.0.1:0") -> Door:
    """Bind the port; `elsewhere`: any free one if it is taken. `free` is how to ask for any free one.

    Raises Invalid (certificates, or no TLS where others could listen in) or Unavailable (the port is taken).
    """
    tls = _tls(listen)
    if tls is None and not listen.loopback and not listen.insecure:
        raise Invalid(
            f"--listen {listen.host}: without TLS everybody on the way can read and take the tokens; give "
            "--tls-cert and --tls-key, listen on 127.0.0.1 behind a proxy that has them, or say --insecure"
        )
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    bound = socket.socket(family)
    try:
        if os.name == "posix":  # elsewhere it would let us take what another has
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((listen.host, listen.port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not elsewhere:
                raise
            bound.bind((listen.host, 0))
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise Unavailable(_why_not(listen, error, f"{free} takes any free port")) from None
    return Door(listen, bound, tls)


def _why_not(listen: Listen, error: OSError, free: str) -> str:
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(listen.port) or "another program"
        return f"port {listen.port} of {host} is taken by {holder}. Stop that, or: {free}"
    if error.errno == errno.EACCES:
        return f"port {listen.port} needs more rights than you have: {free}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine; listen on 127.0.0.1 or one of its own"
    return f"{host}:{listen.port} cannot be listened on: {error.strerror}"


def _tls(listen: Listen) -> ssl.SSLContext | None:
    """TLS 1.2 or later with this certificate. Raises Invalid."""
    if listen.certificate is None and listen.key is None:
        return None
    if listen.certificate is None or listen.key is None:
        raise Invalid("--tls-cert and --tls-key: one goes with the other; give both")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    where = f"--tls-cert {listen.certificate}, --tls-key {listen.key}"
    for path in (listen.certificate, listen.key):
        if not path.is_file():
            raise Invalid(f"{where}: there is no file {path}")
    try:
        context.load_cert_chain(listen.certificate, listen.key, password=_no_password)
    except (ssl.SSLError, OSError) as error:
        said = getattr(error, "reason", None) or error.strerror or "it cannot be read"
        raise Invalid(f"{where}: no certificate and key that go together, as PEM: {said}") from None
    return context


def _no_password() -> str:
    raise Invalid("--tls-key: the key is encrypted; give one that is not, in a file that only you can read")
