"""Identity against a real nats-server: keys, tokens, credentials, roles, revocation, and the embedded server
itself.

Nothing here imitates NATS. The stock client logs in with our files, and the stock `nkeys` package reads our
keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats.errors
import nkeys as stock_nkeys  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from colonies import jwt, nkeys
from colonies.creds import Credential
from colonies.errors import ColoniesError, Invalid, NotFound, Refused, Unavailable
from colonies.nkeys import KINDS, KeyPair
from colonies.operator import Keyring, OwnerKeys, _check_answer
from colonies.roles import ROLES, RoleName, _subject_of, template
from colonies.server import EmbeddedServer, find_server, port_holder

STREAMS = {"LEDGER": "ledger.>", "HEARTBEATS": "heartbeat.>", "LOGS": "log.>"}
ANSWER_SECONDS = 0.2  # how long a denial or a delivery may take to show up


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.create(tmp_path / "keys")


def server_in(folder: Path, keyring: Keyring, **options: Any) -> EmbeddedServer:
    operator = keyring.operator
    accounts = {
        operator.system_account: operator.system_jwt(),
        keyring.owner.account.public: keyring.account_jwt(),
    }
    return EmbeddedServer(
        folder,
        operator_jwt=operator.operator_jwt(),
        system_account=operator.system_account,
        accounts=accounts,
        **{"port": -1, **options},
    )


@pytest.fixture
async def server(tmp_path: Path, keyring: Keyring) -> AsyncIterator[EmbeddedServer]:
    async with server_in(tmp_path / "nats", keyring) as server:
        async with logged_in(server.url, keyring.owner.admin_credential()) as admin:
            js = admin.client.jetstream()
            for name, subject in STREAMS.items():
                await js.add_stream(name=name, subjects=[subject], allow_direct=True)
        yield server


def member(keyring: Keyring, name: str, role: RoleName, expires: int | None = None) -> Credential:
    key = KeyPair.new("user")
    return Credential.of(keyring.owner.mint(name, role, key.public, expires), key)


class Login:
    """A connection with what went wrong on it, and when it was dropped."""

    def __init__(self) -> None:
        self.client = Client()
        self.errors: list[str] = []
        self.dropped = asyncio.Event()

    async def denied(self) -> list[str]:
        await self.client.flush()
        await asyncio.sleep(ANSWER_SECONDS)
        said, self.errors = self.errors, []
        return said


@contextlib.asynccontextmanager
async def logged_in(url: str, who: Credential, **options: Any) -> AsyncIterator[Login]:
    login = Login()

    async def on_error(error: Exception) -> None:
        login.errors.append(str(error))

    async def on_drop() -> None:
        login.dropped.set()

    how: dict[str, Any] = {"user_jwt_cb": who.user_jwt, "signature_cb": who.signature}
    try:
        await login.client.connect(
            url,
            **(options or how),
            inbox_prefix=who.inbox_prefix,
            error_cb=on_error,
            disconnected_cb=on_drop,
            allow_reconnect=False,
        )
        yield login
    finally:
        await login.client.close()


async def assert_refused(url: str, who: Credential) -> None:
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        async with logged_in(url, who):
            pass


# Keys


@pytest.mark.parametrize("kind", KINDS)
def test_the_stock_nkeys_package_reads_our_seeds_and_signs_alike(kind: nkeys.Kind) -> None:
    key = KeyPair.new(kind)
    stock = stock_nkeys.from_seed(bytearray(key.seed.encode()))
    assert stock.public_key.decode() == key.public
    assert stock.sign(b"data") == key.sign(b"data")
    assert KeyPair.from_seed(key.seed) == key
    assert nkeys.kind_of(key.public) == kind


def test_a_signature_is_good_for_its_key_and_its_data_only() -> None:
    key = KeyPair.new("user")
    signature = key.sign(b"data")
    assert nkeys.verify(key.public, b"data", signature)
    assert not nkeys.verify(key.public, b"date", signature)
    assert not nkeys.verify(KeyPair.new("user").public, b"data", signature)
    assert not nkeys.verify(key.public, b"data", signature[:-1])
    assert not nkeys.verify(key.public, b"data", b"")


def test_a_seed_is_never_shown_unless_asked_for() -> None:
    key = KeyPair.new("user")
    who = Credential("w1", "token", key, "A", None)
    for shown in (repr(key), str(key), repr(who), f"{who}"):
        assert key.seed not in shown
        assert repr(key._raw_seed) not in shown
    with pytest.raises(Invalid) as error:
        nkeys.kind_of(key.seed)
    assert key.seed[:20] not in str(error.value)


@pytest.mark.parametrize("point", [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18, nkeys._Y_OF_ORDER_8])
@pytest.mark.parametrize("sign_of_x", [0, 1 << 255])
def test_a_key_for_which_anybody_can_sign_is_no_key(point: int, sign_of_x: int) -> None:
    raw = (point | sign_of_x).to_bytes(32, "little")
    with pytest.raises(Invalid, match="weak key"):
        nkeys.kind_of(nkeys._encoded(bytes([20 << 3]) + raw))


@given(st.data())
def test_a_seed_with_one_changed_character_is_invalid(data: st.DataObject) -> None:
    seed = KeyPair.new("user").seed
    place = data.draw(st.integers(0, len(seed) - 1))
    other = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567").filter(lambda c: c != seed[place]))
    with pytest.raises(Invalid):
        KeyPair.from_seed(seed[:place] + other + seed[place + 1 :])


@given(st.text(max_size=80) | st.text("ABCSUO234567", min_size=56, max_size=58))
def test_whatever_is_no_key_is_invalid_and_nothing_else(text: str) -> None:
    for read in (KeyPair.from_seed, nkeys.kind_of):
        with pytest.raises(Invalid):
            read(text)


# Tokens


def a_token() -> str:
    account = KeyPair.new("account")
    claims = jwt.user_claims(subject=KeyPair.new("user").public, name="w1", issuer_account=account.public)
    return jwt.encode(claims, account)


TOKEN = a_token()


@given(
    st.binary(max_size=300)
    | st.text(max_size=300)
    | st.lists(st.text("AZaz09-_=", max_size=40), min_size=3, max_size=3).map(".".join)
    | st.integers(0, len(TOKEN) - 1).map(lambda cut: TOKEN[:cut])
    | st.tuples(st.integers(0, len(TOKEN) - 1), st.characters()).map(
        lambda change: TOKEN[: change[0]] + change[1] + TOKEN[change[0] + 1 :]
    )
)
def test_decode_raises_invalid_or_gives_the_very_token(token: str | bytes) -> None:
    for verify in (True, False):
        try:
            claims = jwt.decode(token, verify)
        except Invalid:
            continue
        assert isinstance(claims["nats"], dict)
        assert not verify or token == TOKEN


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=8,
    ),
    st.sampled_from(["iss", "sub", "name", "jti", "iat", "exp", "nats"]),
    st.sampled_from(["type", "version", "issuer_account", "tags", None]),
)
def test_signed_nonsense_is_invalid_too(value: Any, field: str, part: str | None) -> None:
    account = KeyPair.new("account")
    claims = jwt.decode(TOKEN) | {"iss": account.public}
    if part is None:
        claims[field] = value
    else:
        claims["nats"] = {**claims["nats"], part: value}
    signed = f"{jwt._segment(jwt._json(jwt._HEADER))}.{jwt._segment(json.dumps(claims).encode())}"
    with contextlib.suppress(Invalid):
        jwt.decode(f"{signed}.{jwt._segment(account.sign(signed.encode()))}")


@pytest.mark.parametrize("claims", ["[" * 100_000, "1" * 5_000, '{"iat":' + "9" * 5_000 + "}", "\ud800"])
def test_hostile_json_is_invalid(claims: str) -> None:
    body = jwt._segment(claims.encode("utf-8", "surrogatepass"))
    with pytest.raises(Invalid):
        jwt.decode(f"{jwt._segment(jwt._json(jwt._HEADER))}.{body}.{'A' * 86}")


def test_an_oversized_token_is_refused_before_it_is_read() -> None:
    with pytest.raises(Invalid, match="limit"):
        jwt.decode("." * (jwt.MAX_TOKEN_BYTES + 1))


def test_a_key_of_the_wrong_kind_cannot_sign() -> None:
    claims = jwt.decode(TOKEN)
    with pytest.raises(Invalid, match="signed by an account"):
        jwt.encode(claims, KeyPair.new("operator"))


def test_two_tokens_of_one_second_have_different_ids(keyring: Keyring) -> None:
    ids = set()
    for revoked in range(3):
        token = keyring.account_jwt({KeyPair.new("user").public: revoked})
        ids.add(jwt.decode(token)["jti"])
    assert len(ids) == 3


# Credentials and key files


def test_a_credential_survives_its_file(tmp_path: Path, keyring: Keyring) -> None:
    who = member(keyring, "w1", "worker")
    path = tmp_path / "made" / "w1.creds"
    who.write(path)
    assert Credential.read(path) == who
    assert (who.name, who.role, who.colony) == ("w1", "worker", keyring.owner.account.public)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    who.write(path)
    assert [file.name for file in path.parent.iterdir()] == ["w1.creds"]


def test_every_key_file_is_private(tmp_path: Path, keyring: Keyring) -> None:
    files = [path for path in (tmp_path / "keys").rglob("*") if path.is_file()]
    assert len(files) == 3 + 1 + len(ROLES)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    folders = [path for path in (tmp_path / "keys", *(tmp_path / "keys").rglob("*")) if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


def test_a_missing_file_is_not_found_and_a_broken_one_is_named(tmp_path: Path, keyring: Keyring) -> None:
    path = tmp_path / "w1.creds"
    with pytest.raises(NotFound, match=r"w1\.creds"):
        Credential.read(path)
    text = member(keyring, "w1", "worker").text()
    other = member(keyring, "w2", "worker")
    broken = [
        b"",
        b"\xff\x00",
        b"x" * 100_000,
        text.encode()[:200],
        text.replace("END USER NKEY SEED", "").encode(),
        text.replace("SU", "SA", 1).encode(),
        text.replace(text.split("\n")[1], other.jwt).encode(),
        text.replace(text.split("\n")[1], TOKEN).encode(),
        text.replace(text.split("\n")[1], keyring.account_jwt()).encode(),
    ]
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(Invalid, match=r"w1\.creds"):
            Credential.read(path)
    with pytest.raises(Invalid, match="is a directory"):
        Credential.read(tmp_path)


@pytest.mark.parametrize("name", ["*", ">", "", "W1", "w.1", "-w", "w" * 33, "w1\n", "ü"])
def test_what_is_no_name_is_never_minted(keyring: Keyring, name: str) -> None:
    with pytest.raises(Invalid):
        keyring.owner.mint(name, "worker", KeyPair.new("user").public)


def test_mint_refuses_unknown_roles_and_other_keys(keyring: Keyring) -> None:
    with pytest.raises(Invalid, match="owner, user, worker, observer, service"):
        keyring.owner.mint("w1", "admin", KeyPair.new("user").public)
    with pytest.raises(Invalid, match="expected a user"):
        keyring.owner.mint("w1", "worker", KeyPair.new("account").public)


def test_keys_are_never_overwritten_and_come_back_as_they_were(tmp_path: Path, keyring: Keyring) -> None:
    with pytest.raises(Invalid, match="exists already"):
        Keyring.create(tmp_path / "keys")
    again = Keyring.open(tmp_path / "keys")
    assert again.owner.public() == keyring.owner.public()
    assert again.operator.system_account == keyring.operator.system_account
    assert OwnerKeys.open(tmp_path / "keys" / "owner").public() == keyring.owner.public()


def test_a_broken_or_missing_seed_is_named(tmp_path: Path, keyring: Keyring) -> None:
    seed = tmp_path / "keys" / "owner" / "roles" / "worker.nk"
    seed.write_text(KeyPair.new("user").seed)
    with pytest.raises(Invalid, match=r"worker\.nk holds the seed of a key of kind user"):
        Keyring.open(tmp_path / "keys")
    seed.write_text("SAJUNK")
    with pytest.raises(Invalid, match=r"worker\.nk is not a sound account seed"):
        Keyring.open(tmp_path / "keys")
    seed.unlink()
    with pytest.raises(NotFound, match=r"worker\.nk"):
        Keyring.open(tmp_path / "keys")


def test_a_creation_killed_at_any_point_leaves_nothing_or_all(tmp_path: Path) -> None:
    """The n-th fsync kills the process. Whatever n is, the folder opens, or can be created."""
    script = """
import os, signal, sys
from pathlib import Path
from colonies.operator import Keyring
left, fsync = int(sys.argv[2]), os.fsync
def dying(fd):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(fd)
os.fsync = dying
Keyring.create(Path(sys.argv[1]))
"""
    codes = set()
    for killed_at in (1, 2, 9, 17, 18, 19, 20, 100):
        folder = tmp_path / str(killed_at) / "keys"
        done = subprocess.run([sys.executable, "-c", script, str(folder), str(killed_at)], check=False)
        codes.add(done.returncode)
        try:
            Keyring.open(folder)
        except NotFound:
            Keyring.create(folder)
    assert codes == {0, -signal.SIGKILL}


# Roles at the broker


def test_no_role_may_forge_the_feed_or_change_the_ledger() -> None:
    for role in ROLES:
        allowed = template(role)["pub"]["allow"]
        assert not [subject for subject in allowed if subject.startswith(("feed", ">", "*", "_INBOX"))]
        assert not [subject for subject in allowed if "LEDGER" in subject and ".STREAM." in subject
                    and ".MSG.GET." not in subject and ".INFO." not in subject]  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
async def test_the_stock_client_logs_in_with_the_file(
    tmp_path: Path, keyring: Keyring, server: EmbeddedServer, role: RoleName
) -> None:
    who = member(keyring, "m1", role)
    who.write(tmp_path / "m1.creds")
    async with logged_in(server.url, who, user_credentials=str(tmp_path / "m1.creds")) as login:
        info = json.loads((await login.client.request("$JS.API.STREAM.INFO.LEDGER")).data)
        assert info["config"]["name"] == "LEDGER"
        assert await login.denied() == []


@pytest.mark.parametrize("role", ROLES)
async def test_another_members_inbox_is_closed(
    keyring: Keyring, server: EmbeddedServer, role: RoleName
) -> None:
    other = member(keyring, "m2", role)
    async with logged_in(server.url, member(keyring, "m1", role)) as login:
        await login.client.subscribe("feed.>")
        assert await login.denied() == []
        for subject in (f"{other.inbox_prefix}.>", "_INBOX.>", "ledger.>", ">", "$JS.ACK.>"):
            await login.client.subscribe(subject)
            [error] = await login.denied()
            assert "permissions violation for subscription" in error


PUBLISH: dict[RoleName, tuple[list[str], list[str]]] = {
    "owner": (
        ["ledger.member.x.approved.m1", "ledger.colony.genesis.m1", "ledger.process.p.queued.q.m1"],
        ["ledger.process.p.assigned.m1", "ledger.member.x.approved.m2"],
    ),
    "user": (
        ["ledger.process.p.queued.q.m1", "ledger.process.p.cancelled.m1", "ledger.queue.q.declared.m1"],
        ["ledger.process.p.queued.q.m2", "ledger.member.x.approved.m1", "ledger.process.p.completed.m1"],
    ),
    "worker": (
        ["ledger.process.p.assigned.m1", "ledger.worker.m1.started.m1", "heartbeat.m1.i", "log.p.m1"],
        ["ledger.process.p.assigned.m2", "ledger.worker.m2.started.m1", "heartbeat.m2.i", "log.p.m2"],
    ),
    "observer": ([], ["ledger.process.p.queued.q.m1", "log.p.m1", "heartbeat.m1.i"]),
    "service": (
        ["ledger.process.p.queued.q.m1", "ledger.process.p.expired.m1"],
        ["ledger.process.p.completed.m1", "ledger.process.p.queued.q.m2", "ledger.member.x.approved.m1"],
    ),
}
NOBODY = [
    "feed.ledger.x",
    "$JS.API.STREAM.DELETE.LEDGER",
    "$JS.API.STREAM.UPDATE.LEDGER",
    "$JS.API.STREAM.PURGE.LEDGER",
    "$JS.API.STREAM.MSG.DELETE.LEDGER",
]
ONLY_SERVICE = ["$JS.API.CONSUMER.CREATE.LEDGER.q", "$JS.API.CONSUMER.DELETE.LEDGER.q"]


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_publishes_its_own_subjects_in_its_own_name(
    keyring: Keyring, server: EmbeddedServer, role: RoleName
) -> None:
    mine, others = PUBLISH[role]
    forbidden = [*others, *NOBODY, *(ONLY_SERVICE if role != "service" else [])]
    async with logged_in(server.url, member(keyring, "m1", role)) as login:
        for subject in mine:
            assert "seq" in json.loads((await login.client.request(subject, b"event")).data)
        assert await login.denied() == []
        for subject in forbidden:
            await login.client.publish(subject, b"event")
        denied = await login.denied()
        assert len(denied) == len(forbidden)
        assert all("permissions violation for publish" in error for error in denied)


EVENTS = sorted({event for role in ROLES.values() for event in role.says})


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_says_the_events_of_the_table_in_its_own_name_and_no_others(
    keyring: Keyring, server: EmbeddedServer, role: RoleName
) -> None:
    def subject_of(event: str, author: str) -> str:
        pattern = _subject_of(event).replace("ledger.worker.{{name()}}", f"ledger.worker.{author}")
        return pattern.replace("{{name()}}", author).replace("*", "x")

    says = {subject_of(event, "m1") for event in ROLES[role].says}
    others = {subject_of(event, "m1") for event in EVENTS} - says
    others |= {subject_of(event, "m2") for event in EVENTS}
    async with logged_in(server.url, member(keyring, "m1", role)) as login:
        for subject in sorted(says):
            assert "seq" in json.loads((await login.client.request(subject, b"event")).data)
        assert await login.denied() == []
        for subject in sorted(others):
            await login.client.publish(subject, b"event")
        denied = await login.denied()
    assert len(denied) == len(others)


async def test_an_observer_answers_who_asks_and_nobody_else(keyring: Keyring, server: EmbeddedServer) -> None:
    asker = member(keyring, "u1", "user")
    async with (
        logged_in(server.url, member(keyring, "o1", "observer")) as observer,
        logged_in(server.url, asker) as user,
    ):

        async def answer(message: Any) -> None:
            for part in range(3):
                await message.respond(str(part).encode())

        await observer.client.subscribe("query.x", cb=answer)
        await observer.client.flush()
        answers = await user.client.subscribe(f"{asker.inbox_prefix}.answers")
        await user.client.publish("query.x", b"", reply=f"{asker.inbox_prefix}.answers")
        parts = [(await answers.next_msg(timeout=10)).data for _ in range(3)]
        assert parts == [b"0", b"1", b"2"]
        assert await observer.denied() == []
        await observer.client.publish(f"{asker.inbox_prefix}.unasked", b"")
        assert len(await observer.denied()) == 1


ORDERS = [
    "STREAM.DELETE.LOGS",
    "STREAM.DELETE.LEDGER",
    "STREAM.PURGE.LOGS",
    "STREAM.PURGE.LEDGER",
    "STREAM.UPDATE.LOGS",
    "CONSUMER.DELETE.LEDGER.q",
]


def first_of(order: str) -> bytes:
    """The direct get whose answer is what the order takes: nothing, or settings."""
    return b'{"last_by_subj": "log.p.w1"}' if ".UPDATE." in order else b'{"seq": 99}'


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("api", ["$JS.API", "_R_.colonies.api"])
async def test_no_answer_of_the_broker_is_taken_for_an_order(
    keyring: Keyring, server: EmbeddedServer, order: str, api: str
) -> None:
    """nats-server does not check reply subjects: see colonies/roles.py."""
    async with (
        logged_in(server.url, keyring.owner.admin_credential()) as admin,
        logged_in(server.url, member(keyring, "w1", "worker")) as worker,
        logged_in(server.url, member(keyring, "o1", "observer")) as login,
    ):
        js = admin.client.jetstream()
        await js.add_consumer("LEDGER", durable_name="q", ack_policy="explicit")
        await js.publish("ledger.process.p.submitted.x", b"event")
        evil = {"name": "LOGS", "subjects": ["log.>"], "allow_direct": True, "description": "evil"}
        await worker.client.request("log.p.w1", json.dumps(evil).encode())
        for stream in ("LEDGER", "LOGS"):
            await login.client.publish(
                f"$JS.API.DIRECT.GET.{stream}", first_of(order), reply=f"{api}.{order}"
            )
        await login.denied()
        for stream in ("LEDGER", "LOGS"):
            info = await js.stream_info(stream)
            assert info.state.messages == 1
            assert info.config.description != "evil"
        assert (await js.consumer_info("LEDGER", "q")).name == "q"


async def test_an_observer_cannot_answer_itself_with_an_order(
    keyring: Keyring, server: EmbeddedServer
) -> None:
    async with logged_in(server.url, member(keyring, "o1", "observer")) as login:
        asked = await login.client.subscribe("query.x")
        await login.client.publish("query.x", b"", reply="$JS.API.STREAM.DELETE.LOGS")
        await (await asked.next_msg(timeout=2)).respond(b"")
        [error] = await login.denied()
        assert "permissions violation for publish" in error
        assert "error" not in json.loads((await login.client.request("$JS.API.STREAM.INFO.LOGS")).data)


async def test_the_account_key_still_makes_and_deletes_streams(
    keyring: Keyring, server: EmbeddedServer
) -> None:
    """Also once the account's token was pushed anew, as every revocation does."""
    await keyring.operator.push_account(server.url, keyring.account_jwt({KeyPair.new("user").public: 1}))
    async with logged_in(server.url, keyring.owner.admin_credential()) as admin:
        js = admin.client.jetstream()
        await js.add_stream(name="X", subjects=["x.>"])
        await js.purge_stream("X")
        await js.delete_stream("X")
    async with logged_in(server.url, member(keyring, "o1", "observer")) as login:
        await login.client.publish(
            "$JS.API.DIRECT.GET.LEDGER", b'{"seq": 99}', reply="$JS.API.STREAM.DELETE.LOGS"
        )
        await login.denied()
        assert "error" not in json.loads((await login.client.request("$JS.API.STREAM.INFO.LOGS")).data)


# Revocation and expiry


async def test_a_revoked_member_is_dropped_at_once_and_stays_out(
    tmp_path: Path, keyring: Keyring, server: EmbeddedServer
) -> None:
    gone, stays = member(keyring, "w1", "worker"), member(keyring, "w2", "worker")
    revocations = {gone.keypair.public: int(time.time())}
    async with logged_in(server.url, gone) as login, logged_in(server.url, stays) as other:
        await keyring.operator.push_account(server.url, keyring.account_jwt(revocations))
        async with asyncio.timeout(2):
            await login.dropped.wait()
        await assert_refused(server.url, gone)
        assert other.client.is_connected
    await server.stop()
    async with server_in(
        tmp_path / "nats", keyring
    ) as restarted:  # with a fresh token that names no revocation
        await assert_refused(restarted.url, gone)
        async with logged_in(restarted.url, stays):
            pass


async def test_a_key_minted_anew_after_its_revocation_may_come_back(
    keyring: Keyring, server: EmbeddedServer
) -> None:
    who = member(keyring, "w1", "worker")
    await keyring.operator.push_account(
        server.url, keyring.account_jwt({who.keypair.public: int(time.time()) - 10})
    )
    async with logged_in(server.url, who):
        pass


async def test_an_expired_credential_is_refused(keyring: Keyring, server: EmbeddedServer) -> None:
    await assert_refused(server.url, member(keyring, "w1", "worker", expires=int(time.time()) - 1))


async def test_a_credential_that_expires_is_dropped_then(keyring: Keyring, server: EmbeddedServer) -> None:
    end = int(time.time()) + 2
    async with logged_in(server.url, member(keyring, "w1", "worker", expires=end)) as login:
        assert not login.dropped.is_set()
        async with asyncio.timeout(20):
            await login.dropped.wait()
    assert time.time() >= end


async def test_a_token_signed_by_another_colony_is_refused(tmp_path: Path, server: EmbeddedServer) -> None:
    stranger = Keyring.create(tmp_path / "stranger")
    await assert_refused(server.url, member(stranger, "w1", "worker"))
    with pytest.raises(Unavailable, match="cannot log in as system"):
        await stranger.operator.push_account(server.url, stranger.account_jwt())


async def test_a_push_to_nowhere_ends_in_time(keyring: Keyring) -> None:
    started = time.monotonic()
    with pytest.raises(Unavailable, match="no answer within 5 s"):
        await keyring.operator.push_account("nats://127.0.0.1:1", keyring.account_jwt())
    assert time.monotonic() - started < 6


async def test_what_another_operator_signed_is_never_pushed(
    tmp_path: Path, keyring: Keyring, server: EmbeddedServer
) -> None:
    stranger = Keyring.create(tmp_path / "stranger")
    with pytest.raises(Invalid, match="not by this operator"):
        await keyring.operator.push_account(server.url, stranger.account_jwt())
    with pytest.raises(Invalid, match="only the token of an account"):
        await keyring.operator.push_account(server.url, TOKEN)


def test_what_the_broker_answers_to_a_token_is_checked() -> None:
    _check_answer(b'{"server": {}, "data": {"code": 200, "message": "jwt updated"}}')
    with pytest.raises(Refused, match="validation failed"):
        _check_answer(b'{"error": {"code": 500, "description": "validation failed"}}')
    for junk in (b"", b"[]", b'"x"', b"{}", b'{"data": 1}', b'{"error": []}'):
        with pytest.raises(Unavailable, match="is this a nats-server"):
            _check_answer(junk)


# The embedded server


async def test_a_port_that_is_taken_is_named_with_who_has_it(
    tmp_path: Path, keyring: Keyring, server: EmbeddedServer
) -> None:
    port = int(server.url.rpartition(":")[2])
    assert port_holder(port) == f"nats-server (pid {server.pid})"
    with pytest.raises(
        Unavailable, match=rf"taken by nats-server \(pid {server.pid}\).*colonies dev --port \d+"
    ):
        await server_in(tmp_path / "second", keyring, port=port).start()


async def test_two_servers_never_share_a_folder(
    tmp_path: Path, keyring: Keyring, server: EmbeddedServer
) -> None:
    with pytest.raises(Unavailable, match=f"in use by the nats-server with pid {server.pid}"):
        await server_in(tmp_path / "nats", keyring).start()


async def test_a_server_that_cannot_start_says_why(tmp_path: Path, keyring: Keyring) -> None:
    broken = EmbeddedServer(
        tmp_path / "nats",
        operator_jwt="junk",
        system_account=keyring.operator.system_account,
        accounts={keyring.operator.system_account: keyring.operator.system_jwt()},
        port=-1,
    )
    with pytest.raises(Unavailable, match="error parsing operator JWT"):
        await broken.start()
    with pytest.raises(Unavailable, match="not running"):
        _ = broken.url


async def test_stop_leaves_nothing_and_may_be_repeated(tmp_path: Path, keyring: Keyring) -> None:
    server = server_in(tmp_path / "nats", keyring, sync_interval="always")
    await server.start()
    pid = server.pid
    assert os.getpgid(pid) == pid
    await server.stop()
    await server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


class Watch:
    """A guard that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int]] = []

    def watch(self, pgid: int, *, grace_s: float = 0.0) -> None:
        self.said.append(("watch", pgid))

    def release(self, pgid: int) -> None:
        self.said.append(("release", pgid))


async def test_the_guard_knows_the_server_from_its_first_to_its_last_moment(
    tmp_path: Path, keyring: Keyring
) -> None:
    guard = Watch()
    async with server_in(tmp_path / "nats", keyring, reaper=guard) as server:
        pid = server.pid
        assert os.getpgid(pid) == pid
    assert guard.said == [("watch", pid), ("release", pid)]


async def test_a_server_that_dies_is_noticed(tmp_path: Path, keyring: Keyring) -> None:
    async with server_in(tmp_path / "nats", keyring) as server:
        os.kill(server.pid, signal.SIGKILL)
        assert await server.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    "options", [{"port": 0}, {"port": 70_000}, {"sync_interval": "2 minutes"}, {"monitor_port": -2}]
)
async def test_parameters_that_make_no_sense_are_refused(
    tmp_path: Path, keyring: Keyring, options: dict[str, Any]
) -> None:
    with pytest.raises(ColoniesError) as error:
        await server_in(tmp_path / "nats", keyring, **options).start()
    assert type(error.value) is Invalid


def test_the_binary_is_the_wheels() -> None:
    said = subprocess.run([find_server(), "--version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith("nats-server: v2.")
