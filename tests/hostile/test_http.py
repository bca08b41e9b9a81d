"""Attacks over HTTP: by whoever has no token, not a good one, or a good one and ill intent."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import nkeys  # type: ignore[import-untyped]
import pytest
import pytest_asyncio
from colonies_projections.http import connections

from colonies import bearer, founding, jwt
from colonies.errors import Invalid
from colonies.ids import new_token
from colonies.nkeys import KeyPair
from colonies.rotation import rotate
from colonies.session import Session
from tests.harness import until
from tests.hostile.attacker import Attacker, ulid
from tests.hostile.field import Field
from tests.hostile.rows import row
from tests.projections.web import Web, serving, token_of

pytestmark = pytest.mark.asyncio(loop_scope="package")

HEADER = {"typ": "colonies-bearer", "alg": "ed25519-nkey"}
TARGETS = ("/v1/processes", "/v1/processes/x", "/v1/events")


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def web(field: Field) -> AsyncIterator[Web]:
    async with serving(await field.colony.session("http", "observer")) as web:
        yield web


async def refused(web: Web, told: str, *tokens: str) -> None:
    """Each gets the very same answer, which tells this and nothing else."""
    for token in tokens:
        for target in TARGETS:
            found = await web.get(target, token)
            said = {"type": "about:blank", "title": "Unauthorized", "status": 401, "detail": told}
            assert (found.status, found.json) == (401, said), token
            challenge = f'Bearer realm="colonies", error="invalid_token", error_description="{told}"'
            assert found.headers["www-authenticate"] == challenge
            assert re.fullmatch(r"[ !#-\[\]-~]*", told)  # RFC 6750, section 3


async def good(web: Web, *tokens: str) -> None:
    for token in tokens:
        assert (await web.get("/v1/processes/x", token)).status == 404
        assert (await web.get("/v1/processes?limit=1", token)).status == 200


def segment(data: object) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def claims(token: str) -> dict[str, Any]:
    text = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found


def signed(seed: str, said: dict[str, Any], header: object = None) -> str:
    """A token made by hand, with stock keys."""
    parts = f"{segment(HEADER if header is None else header)}.{segment(said)}"
    statement = b"\xff" + f"colonies/1:{said['colony']}:bearer:{parts}\n".encode()
    return f"{parts}.{segment(nkeys.from_seed(bytearray(seed.encode())).sign(statement))}"


async def member(field: Field, role: str = "user") -> Session:
    return await field.colony.session(f"m-{new_token(8)}".lower(), role)


@row("forged-bearer")
async def test_a_token_that_nobody_signed_is_none(field: Field, web: Web) -> None:
    ann = field.ann.session
    token = await token_of(ann)
    said, (header, body, signature) = claims(token), token.split(".")
    await good(web, token, signed(ann.keypair.seed, said))
    stranger, revoked = KeyPair.new("user"), await member(field)
    last = await token_of(revoked)
    await founding.revoke(field.colony.owner, revoked.name, "test")
    await until(lambda: web.service._app.state.session.colony.members[revoked.name].until, "it is heard")
    others = ({"alg": "none"}, {"typ": "JWT", "alg": "none"}, {"typ": "JWT", "alg": "HS256"}, {})
    await refused(
        web,
        bearer.GARBLED,
        *(".", "..", "a.b.c", f"{token}.", token.replace(".", ""), "x" * 5_000, f"{header}.{body}."),
        *(f"{segment(other)}.{body}.{signature}" for other in others),
        *(f"{segment(other)}.{body}." for other in others),
        *(signed(ann.keypair.seed, said, other) for other in others),
    )
    await refused(
        web,
        bearer.UNSIGNED,
        *(token[:-1], f"{token}A"),
        f"{header}.{body}.{segment(bytes(64))}",
        f"{header}.{segment({**said, 'sub': 'owner'})}.{signature}",
        f"{header}.{segment({**said, 'exp': said['exp'] + 1})}.{signature}",
        signed(stranger.seed, said),
        signed(stranger.seed, {**said, "iss": stranger.public}),
        signed(stranger.seed, {**said, "iss": stranger.public, "key": stranger.public}),
        # Whether there is such a member, and what became of it, is not for strangers.
        *(signed(stranger.seed, {**said, "sub": sub}) for sub in ("owner", "nobody", revoked.name)),
        *(signed(stranger.seed, {**claims(last), "iss": iss}) for iss in (claims(last)["iss"], said["iss"])),
    )
    assert token not in repr(web.service._app.state.__dict__)


@row("bearer-for-another")
async def test_nobody_but_an_owner_speaks_for_others_and_nobody_for_years(field: Field, web: Web) -> None:
    ann = claims(await token_of(field.ann.session))
    owner = claims(await token_of(field.colony.owner))
    for role in ("user", "worker", "observer", "service"):
        evil = await field.attacker(role)
        mine = {**ann, "sub": evil.name, "key": evil.public, "iss": evil.public}
        await good(web, signed(evil.seed, mine))
        await refused(
            web,
            bearer.UNSIGNED,
            signed(evil.seed, {**ann, "iss": evil.public}),
            signed(evil.seed, {**owner, "iss": evil.public}),
            signed(evil.seed, {**mine, "sub": "ann"}),
            signed(evil.seed, {**mine, "sub": "nobody"}),
        )
        await refused(web, bearer.REKEYED, signed(evil.seed, {**mine, "key": ann["key"]}))
        await refused(
            web,
            bearer.ENDLESS,
            signed(evil.seed, {**mine, "exp": mine["iat"] + bearer.MAX_TOKEN_S + 1}),
            signed(evil.seed, {**mine, "iat": mine["iat"] + 86_400, "exp": mine["exp"] + 86_400}),
        )
        await refused(web, bearer.GARBLED, signed(evil.seed, {**mine, "role": "owner"}))


@row("foreign-bearer")
async def test_a_token_of_another_colony_or_of_nats_is_none(field: Field, web: Web) -> None:
    owner = field.colony.owner
    said = claims(await token_of(owner))
    elsewhere = {**said, "colony": KeyPair.new("account").public}
    parts = ".".join(signed(owner.keypair.seed, said).split(".")[:2])
    sign = owner.keypair.sign
    await refused(web, bearer.FOREIGN, signed(owner.keypair.seed, elsewhere))
    nats = field.colony.keyring.owner.mint("owner", "owner", owner.keypair.public)
    await refused(web, bearer.GARBLED, nats)
    await refused(
        web,
        bearer.UNSIGNED,
        # The claims of this colony, signed for the other.
        f"{parts}.{segment(sign(bearer._signed(elsewhere['colony'], parts)))}",
        # A signature as NATS has it, and as an event has it.
        f"{parts}.{segment(sign(parts.encode()))}",
        f"{parts}.{segment(sign(f'colonies/1:{field.key}:{parts}'.encode()))}",
    )


@row("stale-bearer")
async def test_a_token_ends_with_its_time_its_key_its_member_and_its_maker(field: Field, web: Web) -> None:
    colony = field.colony
    revoked, rotated, boss = await member(field), await member(field), await member(field, "owner")
    short = await token_of(revoked, expires_s=1)
    tokens = [await token_of(revoked), await token_of(colony.owner, revoked.name)]
    changed = [await token_of(rotated), await token_of(colony.owner, rotated.name)]
    bosses = [await token_of(boss), await token_of(boss, "ann")]
    await good(web, *tokens, *changed, *bosses)
    async with asyncio.timeout(10):
        while (await web.get("/v1/processes/x", short)).status != 401:
            await asyncio.sleep(0.05)
    await founding.revoke(colony.owner, revoked.name, "test")
    await founding.revoke(colony.owner, boss.name, "test")
    fresh = await rotate(
        colony.owner, colony.keyring.owner, colony.url, await colony.credential(rotated.name, "user")
    )
    await asyncio.sleep(1)  # the promise is: within a second
    await refused(web, bearer.EXPIRED, short)
    await refused(web, bearer.REVOKED, *tokens, bosses[0])
    await refused(web, bearer.REKEYED, *changed)
    await refused(web, bearer.UNMADE, bosses[1])
    async with asyncio.timeout(10):
        await colony.owner.refresh()
    await good(web, await token_of(colony.owner, rotated.name), await token_of(colony.owner, "ann"))
    now = await colony.owner.ledger.now()
    own, _ = bearer.issue(colony.owner.colony, fresh.keypair, rotated.name, expires_s=60, now=now)
    await good(web, own)


@row("feed-after-revocation")
async def test_an_open_feed_ends_with_its_member(field: Field, web: Web) -> None:
    gone, stays = await member(field), field.ann.session
    # By its own word and by an owner's; then one that begins with the first event.
    tokens = [await token_of(gone), await token_of(field.colony.owner, gone.name)]
    async with contextlib.AsyncExitStack() as stack:
        feeds = [await stack.enter_async_context(web.events(token)) for token in tokens]
        feeds.append(await stack.enter_async_context(web.events(tokens[0], "?after=0")))
        other = await stack.enter_async_context(web.events(await token_of(stays)))
        await founding.revoke(field.colony.owner, gone.name, "test")
        began = time.monotonic()
        heard = [await feed.ended() for feed in feeds]
        assert time.monotonic() - began < 1
        sequence = await field.colony.owner.ledger.last_sequence()
        for events in heard:
            assert all(event.id <= sequence for event in events)
        assert (await field.running()).id
        assert (await other.next()).data["type"] == "colonies.member.revoked"


@row("bearer-elsewhere")
async def test_a_token_is_no_login_and_no_event(field: Field, web: Web) -> None:
    evil = await field.attacker("user")
    token = await token_of(field.colony.owner)
    host, _, port = field.colony.url.removeprefix("nats://").rpartition(":")
    signature = token.rpartition(".")[2]
    for options in (
        {"auth_token": token},
        {"jwt": token, "sig": signature},
        {"jwt": token, "nkey": claims(token)["iss"], "sig": signature},
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        assert (await reader.readline()).startswith(b"INFO ")
        writer.write(f"CONNECT {json.dumps({**options, 'verbose': False})}\r\nPING\r\n".encode())
        assert b"Authorization Violation" in await reader.readline()
        writer.close()
    with pytest.raises(Invalid, match="the header of a NATS JWT"):
        jwt.decode(token)
    subject = f"ledger.process.{ulid()}.queued.q.{evil.name}"
    await field.agree({await evil.store(subject, token.encode()): ""}, "damaged")


@row("challenge")
async def test_a_member_signs_no_token_as_a_challenge(field: Field, web: Web) -> None:
    """The broker chooses the text that a member signs to log in; what a token's signature covers is none."""
    evil: Attacker = await field.attacker("user")
    said = {**claims(await token_of(field.ann.session)), "sub": evil.name, "key": evil.public}
    parts = f"{segment(HEADER)}.{segment({**said, 'iss': evil.public})}"
    key = nkeys.from_seed(bytearray(evil.seed.encode()))
    statement = f"colonies/1:{field.key}:bearer:{parts}\n"
    for nonce in (parts, statement, f"\xff{statement}", f"\ufffd{statement}"):
        await refused(web, bearer.UNSIGNED, f"{parts}.{segment(key.sign(nonce.encode()))}")
    good_one = key.sign(b"\xff" + statement.encode())
    await good(web, f"{parts}.{segment(good_one)}")


@row("half-open")
async def test_connections_that_bring_nothing_are_cut_off(
    field: Field, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 1.0)
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 120)
    token = await token_of(field.ann.session)
    opened: list[asyncio.StreamWriter] = []
    readers: list[asyncio.StreamReader] = []
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    for number in range(100):
        reader, writer = await asyncio.open_connection("127.0.0.1", web.door.port)
        opened.append(writer)
        readers.append(reader)
        writer.write((b"", b"GET", head, b"\x16\x03\x01\x02\x00", b"\0" * 100)[number % 5])
    await good(web, token)

    async def trickle() -> None:
        with contextlib.suppress(ConnectionError):
            while not opened[2].is_closing():
                opened[2].write(b"X-A: 1\r\n")
                await opened[2].drain()
                await asyncio.sleep(0.05)

    async with field.meanwhile(trickle()):
        began = time.monotonic()
        for reader in readers:
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(10):
                    await reader.read()
        assert time.monotonic() - began < 5
    # One that has more to say than a head may have, and one that asks a thousand times without reading.
    reader, writer = await asyncio.open_connection("127.0.0.1", web.door.port)
    opened.append(writer)
    with contextlib.suppress(ConnectionError):
        writer.write(head + b"X: " + b"x" * connections.MAX_HEAD_BYTES * 4)
        assert (await reader.read()).startswith(b"HTTP/1.1 4")
    _, writer = await asyncio.open_connection("127.0.0.1", web.door.port)
    opened.append(writer)
    writer.write((head + b"\r\n") * 1_000)
    await good(web, token)
    # More than there may be are not let in, and the others do not suffer.
    crowd = [await asyncio.open_connection("127.0.0.1", web.door.port) for _ in range(150)]
    for _, writer in crowd:
        writer.close()
    for writer in opened:
        writer.close()
    await until(lambda: len(web_connections(web)) < 120, "they have left")
    await good(web, token)


def web_connections(web: Web) -> set[Any]:
    assert web.service._server is not None
    return web.service._server.server_state.connections


@row("rebinding")
async def test_a_page_whose_name_leads_here_learns_nothing(field: Field, web: Web) -> None:
    token = await token_of(field.ann.session)
    for target in (*TARGETS, "/health", "/metrics", "/docs", "/openapi.json"):
        for host in ("evil.example", f"evil.example:{web.door.port}", "127.0.0.1.evil.example", "2130706433"):
            found = await web.get(target, token, Host=host, Origin=f"http://{host}")
            assert found.status == 421
            assert field.colony.owner.colony.name not in found.json["detail"]
        if target != "/v1/events":
            found = await web.get(target, token, Origin="http://evil.example")
            assert "access-control-allow-origin" not in found.headers
    connection = await web.connect()
    connection.writer.write(b"GET /health HTTP/1.0\r\n\r\n")
    assert b" 421 " in (await connection.reader.read()).split(b"\r\n")[0]
    connection.close()


@row("http-subjects")
async def test_a_path_is_never_another_subject(field: Field, web: Web) -> None:
    token = await token_of(field.ann.session)
    for id in (
        "*",
        ">",
        "%3E",
        "a.>",
        "x%20y",
        "%00",
        "a%2Fb",
        "..",
        "%2e%2e",
        "a%0d%0aX:1",
        "%FF",
        "x" * 65,
    ):
        for target in (
            f"/v1/processes/{id}",
            f"/v1/workflows/{id}",
            f"/v1/processes/{id}/history",
            f"/v1/{id}",
        ):
            assert (await web.get(target, token)).status in (400, 404), target
    for view in ("rebuild", "rebuild?request=x", "%72ebuild", "processes.x", "$SRV", "Rebuild"):
        assert (await web.get(f"/v1/{view}", token)).status == 404
    for question in ("limit=1e3", "limit=+1", "limit=1_0", "at_least=-1", "state=%ED%A0%80", "=1", "%00=1"):
        assert (await web.get(f"/v1/processes?{question}", token)).status == 400, question
