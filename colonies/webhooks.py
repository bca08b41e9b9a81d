"""Webhooks as an owner holds them: added, listed, changed, removed; and how requests are signed.

Events leave the colony here, and a service makes requests from its own network, so only owners say where to.
The secret that signs the requests is on the ledger, sealed for the service's key (`colonies.sealing`). What
is sent when, and again, is `colonies_projections.webhooks`; receivers check it with any library for Standard
Webhooks (https://www.standardwebhooks.com).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, get_args
from urllib.parse import urlsplit

from colonies import subjects
from colonies.core.colony import Colony
from colonies.core.events import (
    MAX_WEBHOOK_FILTERS,
    MAX_WEBHOOK_URL_CHARS,
    Event,
    WebhookAdded,
    WebhookChanged,
    WebhookRemoved,
    checked_reason,
)
from colonies.core.members import Member
from colonies.core.names import name as checked_name
from colonies.core.names import shown
from colonies.core.webhook_events import FILTER, URL
from colonies.core.webhooks import Webhook
from colonies.errors import Conflict, Invalid, NotFound, Unavailable
from colonies.history import examine
from colonies.ids import new_secret
from colonies.ledger import Stored
from colonies.sealing import open_sealed, seal
from colonies.session import Session

MAX_WEBHOOKS: Final = 100  # of a colony at a time: each has requests of its own under way
MIN_SECRET_BYTES: Final = 24  # these two are those of Standard Webhooks
MAX_SECRET_BYTES: Final = 64
SERVICE: Final = "webhooks"  # a service that sends is called so, or `webhooks-HOST`
SECRET: Final = "whsec_"

TYPES: Final = tuple(sorted(kind.__dataclass_fields__["type"].default for kind in get_args(Event)))

_ALLOWED_URL = "allowed: such as https://example.com/hook, without a user and a fragment"


# --- on the ledger ----------------------------------------------------------------------------------


async def webhooks(session: Session) -> list[Webhook]:
    """The webhooks of the colony, by name, as the ledger has them now."""
    stored: list[Stored] = []
    async for batch in session.ledger.scan(0, subjects.WEBHOOKS):
        stored += batch
    if any(examine(session.colony, each).stranger for each in stored):
        await session.refresh()
    view = replace(session.colony, heads={}, webhooks={})
    for each in stored:
        session.fold(view, each)
    return [view.webhooks[name] for name in sorted(view.webhooks)]


async def webhook(session: Session, name: str) -> Webhook:
    """One of them. Raises NotFound."""
    checked_name(name, "webhook")
    for found in await webhooks(session):
        if found.name == name:
            return found
    raise NotFound(
        f"there is no webhook {name} in the colony {session.colony.name}; see `colonies webhook ls`"
    )


async def add_webhook(
    session: Session,
    name: str,
    url: str,
    *,
    events: Sequence[str] = ("*",),
    func: str | None = None,
    label: str | None = None,
    secret: bytes | None = None,
    service: str | None = None,
) -> bytes:
    """Have events sent to `url`, from now on; the secret that signs the requests, a new one by default.

    `events` are types (`process.failed`), `process.*` and the like, or `*`; with `func` and `label` those of
    such processes only. `service` is the member that sends, by default the only one there is.

    Raises:
        Invalid: one of these makes no sense. Conflict: there is one of this name. Refused: this member is no
        owner. Unavailable: no service of this colony sends.
    """
    checked_name(name, "webhook")
    url, filters = checked_url(url), checked_filters(events)
    secret = checked_secret(new_secret() if secret is None else secret)
    there = {found.name for found in await webhooks(session)}
    if name in there:
        raise Conflict(f"there is a webhook {name}; take another name, or say --change to change that one")
    if len(there) >= MAX_WEBHOOKS:
        raise Invalid(
            f"webhook {name}: the colony has {len(there)} webhooks; at most {MAX_WEBHOOKS} are allowed"
        )
    sends = service_named(session.colony, service, await session.ledger.now())
    sealed = seal(secret, sends.key, about(session.colony.key, name, url))
    said = WebhookAdded(url, filters, sends.name, sends.key, sealed, func, label)
    await session.record_entity("webhook", name, said)
    return secret


async def change_webhook(
    session: Session,
    name: str,
    *,
    url: str | None = None,
    events: Sequence[str] | None = None,
    func: str | None = None,
    label: str | None = None,
    secret: bytes | None = None,
    service: str | None = None,
    renew: bool = False,
) -> bytes | None:
    """Change what is given of a webhook, from now on; None leaves it as it is, and "" of `func` and `label`
    asks for none. The secret that is new; None if the old one stays.

    It stays unless one is given, or it is to be new (`renew`), or it cannot stay: it is sealed for one
    address and one key of the service, so with another of these it is a new one.

    Raises:
        NotFound: there is none of this name. Else as `add_webhook`.
    """
    before = await webhook(session, name)
    url = before.url if url is None else checked_url(url)
    filters = list(before.events) if events is None else checked_filters(events)
    now = await session.ledger.now()
    member = session.colony.members.get(before.service)
    if service is not None or member is None or member.ended_by(now):
        member = service_named(session.colony, service, now)
    sealed, stays = before.secret, (url, member.key) == (before.url, before.key)
    if secret is None and (renew or not stays):
        secret = new_secret()
    if secret is not None:
        sealed = seal(checked_secret(secret), member.key, about(session.colony.key, name, url))
    func, label = (before.func if func is None else func), (before.label if label is None else label)
    said = WebhookChanged(url, filters, member.name, member.key, sealed, func or None, label or None)
    await session.record_entity("webhook", name, said)
    return secret


async def remove_webhook(session: Session, name: str, reason: str = "") -> None:
    """Nothing is sent there any more, nor what is still to be delivered. Raises NotFound, Refused."""
    await webhook(session, name)
    await session.record_entity("webhook", name, WebhookRemoved(checked_reason(reason)))


def service_named(colony: Colony, name: str | None, now: int) -> Member:
    """The member that is to send: the one of this name, or the only one there is.

    Raises:
        NotFound: it is none that could. Unavailable: there is none. Invalid: there are several.
    """
    if name is not None:
        member = colony.members.get(name)
        if member is None or member.role != "observer" or member.ended_by(now):
            raise NotFound(f"--via {shown(name)}: there is no member of this name with the role observer")
        return member
    found = [
        member
        for member in colony.members.values()
        if member.role == "observer"
        and not member.ended_by(now)
        and (member.name == SERVICE or member.name.startswith(f"{SERVICE}-"))
    ]
    if not found:
        raise Unavailable(
            "no service of this colony sends to webhooks; `colonies dev` runs one, and so does "
            "`colonies server start --only webhooks`"
        )
    if len(found) > 1:
        names = ", ".join(member.name for member in found)
        raise Invalid(f"there are {names} that can send: say which with --via")
    return found[0]


def unserved(colony: Colony, found: Webhook, now: int) -> str | None:
    """Why the service of a webhook cannot send for it, as far as the ledger tells; None: it can."""
    member = colony.members.get(found.service)
    if member is None or member.ended_by(now):
        return f"{found.service} is no member any more"
    if member.key != found.key:
        return f"{found.service} has another key than when the secret was sealed for it"
    return None


# --- the secret -------------------------------------------------------------------------------------


def about(colony: str, name: str, url: str) -> bytes:
    """What a webhook's secret is sealed for: this address, and no other."""
    return b"\0".join(text.encode() for text in ("webhook", colony, name, url))


def secret_of(session: Session, found: Webhook) -> bytes:
    """The secret of a webhook that this member sends for. Raises Invalid: its key does not open it."""
    return open_sealed(found.secret, session.keypair, about(session.colony.key, found.name, found.url))


def read_secret(text: str) -> bytes:
    """The bytes of a secret as people have it: `whsec_` and base64. Raises Invalid, without showing it."""
    said = text.strip().removeprefix(SECRET)
    try:
        return checked_secret(base64.b64decode(said + "=" * (-len(said) % 4), validate=True))
    except (binascii.Error, ValueError):
        raise Invalid(
            f"the secret is not base64; allowed: {SECRET} and {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes "
            "in base64"
        ) from None


def shown_secret(secret: bytes) -> str:
    """A secret as receivers' libraries take it."""
    return SECRET + base64.b64encode(secret).decode()


def checked_secret(secret: bytes) -> bytes:
    """The secret, if its length is allowed. Raises Invalid, without showing it."""
    if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        raise Invalid(
            f"the secret has {len(secret)} bytes; {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} are allowed"
        )
    return secret


def signature(secret: bytes, id: str, timestamp: int, body: bytes) -> str:
    """What the header `webhook-signature` says of a request: `v1` of Standard Webhooks, HMAC-SHA-256."""
    signed = hmac.digest(secret, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"


# --- what people give -------------------------------------------------------------------------------


def checked_url(text: str) -> str:
    """An address as it stands on the ledger: its host in small letters. Raises Invalid."""
    if len(text) > MAX_WEBHOOK_URL_CHARS:
        raise Invalid(f"url: {len(text)} characters; at most {MAX_WEBHOOK_URL_CHARS} are allowed")
    scheme, _, rest = text.partition("://")
    end = re.search(r"[/?#]", rest)
    host = rest[: end.start()] if end else rest
    url = f"{scheme.lower()}://{host.lower()}{rest[len(host) :]}"
    if "@" in host:  # the password is not repeated
        raise Invalid(f"url: it holds a user, which all members could read; {_ALLOWED_URL}")
    try:
        port = urlsplit(url).port
        sound = re.fullmatch(URL.replace(r"\z", ""), url) is not None and port != 0
        if host.startswith("["):
            ipaddress.IPv6Address(urlsplit(url).hostname or "")
    except ValueError:
        sound = False
    if not sound:
        raise Invalid(f"url: {shown(text)} is no address to send to; {_ALLOWED_URL}")
    return url


def checked_filters(given: Sequence[str]) -> list[str]:
    """Which events are asked for. Raises Invalid, naming those that there are."""
    if not 1 <= len(given) <= MAX_WEBHOOK_FILTERS:
        raise Invalid(f"events: {len(given)} filters; 1 to {MAX_WEBHOOK_FILTERS} are allowed")
    kinds = sorted({type.partition(".")[0] for type in TYPES})
    of_kinds = ", ".join(f"{kind}.*" for kind in kinds)
    for said in given:
        kind, _, event = said.partition(".")
        if re.fullmatch(FILTER.replace(r"\z", ""), said) is None or (said != "*" and kind not in kinds):
            raise Invalid(
                f"events: {shown(said)}; allowed: a type such as process.failed, {of_kinds}, or * for all"
            )
        if said != "*" and event != "*" and said not in TYPES:
            there = ", ".join(type for type in TYPES if type.startswith(f"{kind}."))
            raise Invalid(f"events: there is no {said}; there are {there}")
    return list(dict.fromkeys(given))


def is_plain(url: str) -> bool:
    """Does it send events in the clear, to another machine?"""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https" or host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True
