"""Joining without sharing a key, and changing one: what travels between two machines, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
import pytest

from colonies import jwt
from colonies.creds import Credential
from colonies.joining import JoinRequest, _joining, parse_approval, parse_request
from colonies.nkeys import KeyPair
from colonies.operator import OwnerKeys
from tests.cli.conftest import Cli, machine

SEED = re.compile(r"S[OAU]A[A-Z2-7]{55}")
_numbers = iter(range(1, 1_000))


@pytest.fixture
def newcomer(tmp_path: Path) -> Cli:
    """The command on the newcomer's machine."""
    return machine(tmp_path / "newcomer")


def name() -> str:
    """A name that nobody has: all tests of this folder share one colony."""
    return f"new{next(_numbers)}"


def carried(file: Path, to: Cli) -> str:
    """The file, brought to another machine by some means; its name there."""
    (to.folder / file.name).write_bytes(file.read_bytes())
    return str(to.folder / file.name)


def asked(newcomer: Cli, *options: str, role: str = "user") -> Path:
    called = name()
    return Path(
        newcomer.ok("member", "request", "--name", called, "--role", role, *options, "-o", "name").out.strip()
    )


def joined(owner: Cli, newcomer: Cli, role: str = "user", *options: str) -> tuple[str, Path]:
    """A member that joined in the three steps; its name, which is its context's too, and its credential."""
    request = asked(newcomer, role=role)
    approval = owner.folder / f"{request.stem}.approval"
    owner.ok("member", "approve", str(request), "--yes", "--out", str(approval), *options)
    done = newcomer.ok("member", "install", str(approval), "-o", "json").one
    return done["name"], Path(done["creds"])


# --- the round trip ---------------------------------------------------------------------------------


def test_a_newcomer_joins_with_a_key_that_never_leaves_its_machine(
    owner: Cli, newcomer: Cli, colony_folder: Path, tmp_path: Path
) -> None:
    holder = machine(tmp_path / "holder")
    home = colony_folder / "home"
    url = owner.ok("context", "get", "-o", "json").one["url"]
    add = ("context", "add", "lab", "--url", url, "--creds", str(home / "owner.creds"))
    holder.ok(*add, "--keys", str(home / "keys" / "owner"))

    request = asked(newcomer)
    (waiting,) = (newcomer.folder / ".local/share/colonies/requests").iterdir()
    assert stat.S_IMODE(waiting.stat().st_mode) == 0o600
    there = carried(request, holder)
    approved = holder.ok("member", "approve", there, "--yes")
    assert f"{request.stem} asks to join as user, with the key U" in approved.err
    approval = holder.folder / f"{request.stem}.approval"
    installed = newcomer.ok("member", "install", carried(approval, newcomer), "-o", "json").one

    assert installed["context"] == request.stem
    creds = Path(installed["creds"])
    assert newcomer.folder in creds.parents
    assert stat.S_IMODE(creds.stat().st_mode) == 0o600
    assert not waiting.exists()
    seed = Credential.read(creds).keypair.seed
    travelled = [request, approval, *(path for path in holder.folder.rglob("*") if path.is_file())]
    for path in travelled:
        assert seed not in path.read_text()
        assert not SEED.search(path.read_text()) or path.suffix == ".creds"
    run = newcomer.ok("process", "run", "echo hi", "--runtimetype", "cli", "-o", "json").one
    assert (run["submitter"], run["output"]) == (request.stem, "hi")
    assert not [finding for finding in findings(newcomer) if request.stem in (finding["subject"] or "")]
    members = {member["name"]: member for member in newcomer.ok("member", "ls", "-o", "json").lines}
    assert members[request.stem]["key"] == Credential.read(creds).keypair.public
    asyncio.run(_with_the_stock_client(url, creds))


async def _with_the_stock_client(url: str, creds: Path) -> None:
    inbox = f"_INBOX_{Credential.read(creds).keypair.public}"
    client = await nats.connect(url, user_credentials=str(creds), inbox_prefix=inbox)
    try:
        info = json.loads((await client.request("$JS.API.STREAM.INFO.LEDGER")).data)
        assert info["config"]["name"] == "LEDGER"
    finally:
        await client.close()
    plain = await nats.connect(url, user_credentials=str(creds))
    try:
        heard = await plain.subscribe("feed.>")
        await plain.flush()
        await heard.unsubscribe()
    finally:
        await plain.close()


def test_a_worker_that_joined_for_a_while_works(owner: Cli, newcomer: Cli, cli: Cli) -> None:
    called, creds = joined(owner, newcomer, "worker", "--expires", "1h")
    assert Credential.read(creds).expires is not None
    worker = newcomer.start("worker", "start", "--runtimetype", called)
    try:
        run = cli.ok("process", "run", "echo hi", "--runtimetype", called, "-o", "json").one
        assert run["worker"] == called
    finally:
        worker.terminate()
        worker.communicate(timeout=30)
    assert worker.returncode == 0


def test_a_request_names_the_colony_that_is_known(owner: Cli, newcomer: Cli) -> None:
    called, creds = joined(owner, newcomer)
    colony = Credential.read(creds).colony
    request = asked(newcomer, "--context", called)
    assert parse_request(request.read_text()).colony == colony
    assert parse_request(asked(newcomer, "--colony", colony).read_text()).colony == colony
    assert parse_request(asked(newcomer).read_text()).colony is None


def test_install_takes_another_context_and_url(owner: Cli, newcomer: Cli) -> None:
    url = owner.ok("context", "get", "-o", "json").one["url"].replace("127.0.0.1", "localhost")
    request = asked(newcomer)
    owner.ok("member", "approve", str(request), "--yes")
    approval = str(request.with_suffix(".approval"))
    newcomer.ok("member", "install", approval, "--context", "lab", "--url", url)
    found = newcomer.ok("context", "get", "lab", "-o", "json").one
    assert (found["url"], found["in_use"]) == (url, True)
    assert request.stem in newcomer.ok("member", "ls", "-o", "name").out.split()


# --- what is not approved ---------------------------------------------------------------------------


def rewritten(request: Path, **changed: Any) -> None:
    fields = json.loads(request.read_text())
    request.write_text(json.dumps({**fields, **changed}))


def signed(name: str, key: KeyPair | None = None, role: str = "user", colony: str | None = None) -> str:
    """A request with a good signature, whatever it says."""
    key = key or KeyPair.new("user")
    signature = key.sign(_joining(name, role, key.public, colony))
    return JoinRequest(name, role, key.public, colony, signature).text()  # type: ignore[arg-type]


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "used name": (lambda at: _put(at, signed("ann")), "the name ann is taken: ann is a user since"),
    "bad name": (lambda at: _put(at, signed("An.n")), "'An.n' is not allowed as a name; allowed: 1 to 32"),
    "bad role": (lambda at: _put(at, signed("zed", role="king")), "roles are owner, user"),
    "altered name": (lambda at: rewritten(at, name="other"), "it was altered after it was signed"),
    "altered role": (lambda at: rewritten(at, role="owner"), "it was altered after it was signed"),
    "altered key": (
        lambda at: rewritten(at, key=KeyPair.new("user").public),
        "it was altered after it was signed",
    ),
    "another field": (lambda at: rewritten(at, admin="yes"), "unknown field 'admin'"),
    "lacking field": (lambda at: rewritten(at, signature=None), "lacks 'signature'"),
    "foreign": (
        lambda at: _put(at, signed("zed", colony=KeyPair.new("account").public)),
        "this request is for the colony A",
    ),
    "cut": (lambda at: _put(at, at.read_text()[:100]), "it is not JSON"),
    "no request": (lambda at: _put(at, "{}"), "it is no request"),
    "no key": (lambda at: rewritten(at, key="U" * 56), "checksum"),
    "not text": (lambda at: _put(at, "\u00ff"), "not plain text"),
}


def _put(path: Path, text: str) -> None:
    path.write_text(text)


def test_what_cannot_be_approved_is_refused_and_nothing_is_recorded(owner: Cli, tmp_path: Path) -> None:
    before = owner.last_sequence()
    for what, (spoil, why) in REFUSED.items():
        request = tmp_path / f"{what.replace(' ', '-')}.request"
        request.write_text(signed("zed"))
        spoil(request)
        done = owner("member", "approve", str(request), "--yes")
        assert done.code == 2, (what, done.err)
        assert why in done.err, what
        assert not request.with_suffix(".approval").exists()
    assert owner.last_sequence() == before


def test_a_key_that_is_known_and_a_request_that_was_approved_are_refused(owner: Cli, newcomer: Cli) -> None:
    request = asked(newcomer)
    owner.ok("member", "approve", str(request), "--yes")
    before = owner.last_sequence()
    twice = owner("member", "approve", str(request), "--yes")
    assert twice.code == 2
    assert "this request was approved already" in twice.err

    (waiting,) = (newcomer.folder / ".local/share/colonies/requests").iterdir()
    key = KeyPair.from_seed(json.loads(waiting.read_text())["seed"])
    request.write_text(signed("somebody-else", key))
    known = owner("member", "approve", str(request), "--yes")
    assert known.code == 2
    assert f"the key of this request is that of {request.stem} already" in known.err
    assert owner.last_sequence() == before


def test_an_approval_that_got_lost_is_written_again_without_a_word_on_the_ledger(
    owner: Cli, newcomer: Cli
) -> None:
    request = asked(newcomer)
    early = owner("member", "approve", str(request), "--again")
    assert early.code == 2
    assert "approve it first" in early.err
    owner.ok("member", "approve", str(request), "--yes", "--expires", "1h")
    first = parse_approval(request.with_suffix(".approval").read_text())
    request.with_suffix(".approval").unlink()
    before = owner.last_sequence()
    owner.ok("member", "approve", str(request), "--again")
    assert owner.last_sequence() == before
    again = parse_approval(request.with_suffix(".approval").read_text())
    assert (again.key, again.url) == (first.key, first.url)
    assert jwt.decode(again.token)["exp"] == jwt.decode(first.token)["exp"]
    newcomer.ok("member", "install", str(request.with_suffix(".approval")))


def test_only_who_holds_the_owners_keys_approves(cli: Cli, newcomer: Cli, colony_folder: Path) -> None:
    request = asked(newcomer)
    before = cli.last_sequence()
    done = cli("member", "approve", str(request), "--yes")
    assert done.code == 4
    assert "needs the owner's keys" in done.err
    assert newcomer("member", "approve", str(request), "--yes").code == 5  # no colony is known there
    assert cli.last_sequence() == before


def test_without_the_ledgers_word_there_is_no_approval(owner: Cli, newcomer: Cli) -> None:
    request = asked(newcomer)
    done = owner("member", "approve", str(request), "--yes", "--url", "nats://127.0.0.1:1")
    assert done.code == 6
    assert not request.with_suffix(".approval").exists()


def test_approve_shows_what_it_approves_and_asks(owner: Cli, newcomer: Cli) -> None:
    request = asked(newcomer, role="service")
    before = owner.last_sequence()
    done = owner("member", "approve", str(request))
    assert done.code == 2
    assert f"{request.stem} asks to join as service, with the key U" in done.err
    assert "say --yes" in done.err
    for answer, code in ((b"n\n", 1), (b"\x04", 130), (b"y\n", 0)):
        assert owner.last_sequence() == before
        mine, theirs = os.openpty()
        process = owner.start("member", "approve", str(request), stdin=theirs)
        os.write(mine, answer)
        _, err = process.communicate(timeout=30)
        os.close(mine)
        os.close(theirs)
        assert process.returncode == code, err
        assert "Approve it?" in err
    assert owner.last_sequence() == before + 1


def test_no_file_is_overwritten(owner: Cli, newcomer: Cli) -> None:
    request = asked(newcomer)
    again = newcomer("member", "request", "--name", request.stem, "--role", "user")
    assert again.code == 2
    assert "there is a file already" in again.err
    request.with_suffix(".approval").write_text("mine")
    before = owner.last_sequence()
    assert owner("member", "approve", str(request), "--yes").code == 2
    assert request.with_suffix(".approval").read_text() == "mine"
    assert owner.last_sequence() == before


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--name", "W 1", "--role", "user"), "not allowed as a name"),
        (("--name", "w1", "--role", "king"), "roles are owner"),
        (("--name", "w1", "--role", "user", "--colony", "UAB"), "56 characters"),
        (("--name", "w1", "--role", "user", "--out", "no/such/folder"), "cannot be written"),
    ],
)
def test_a_request_that_makes_no_sense_is_not_made(newcomer: Cli, options: tuple[str, ...], why: str) -> None:
    done = newcomer("member", "request", *options)
    assert done.code == 2
    assert why in done.err
    assert list(newcomer.folder.rglob("*.*")) == []


# --- what is not installed --------------------------------------------------------------------------


def test_an_approval_is_installed_where_the_key_is_and_once(owner: Cli, newcomer: Cli, alone: Cli) -> None:
    request = asked(newcomer)
    owner.ok("member", "approve", str(request), "--yes")
    approval = str(request.with_suffix(".approval"))
    for elsewhere in (alone, owner):
        done = elsewhere("member", "install", approval)
        assert done.code == 5
        assert "no key waits for this approval" in done.err
    newcomer.ok("member", "install", approval)
    assert newcomer("member", "install", approval).code == 5


def test_an_approval_that_is_not_what_was_asked_for_is_not_installed(
    owner: Cli, newcomer: Cli, colony_folder: Path
) -> None:
    keys = OwnerKeys.open(colony_folder / "home" / "keys" / "owner")
    request = asked(newcomer, "--colony", keys.account.public)
    key = parse_request(request.read_text()).key
    file = newcomer.folder / "bad.approval"

    def given(called: str, role: str, by: OwnerKeys = keys, **changed: str) -> tuple[int, str]:
        token = by.mint(called, role, key)
        fields = {
            "colonies": "approval",
            "name": called,
            "colony_name": "test",
            "url": "nats://h",
            "token": token,
        }
        file.write_text(json.dumps({**fields, **changed}))
        done = newcomer("member", "install", str(file))
        return done.code, done.err

    stranger = OwnerKeys.create(newcomer.folder / "stranger")
    for (code, err), why in [
        (given(request.stem, "owner"), "for the role owner, asked for was user"),
        (given("other", "user"), "for the name other, asked for was"),
        (given(request.stem, "user", stranger), "for the colony A"),
        (given(request.stem, "user", name="other"), "it was altered"),
        (given(request.stem, "user", url="ftp://h"), "allowed: nats"),
        (given(request.stem, "user", token="x.y.z"), "JWT"),
    ]:
        assert code == 2, err
        assert why in err
    newcomer.ok("context", "add", "there", *_some_context(newcomer, keys))
    fields = {"colonies": "approval", "name": request.stem, "colony_name": "test", "url": "nats://h"}
    file.write_text(json.dumps({**fields, "token": keys.mint(request.stem, "user", key)}))
    taken = newcomer("member", "install", str(file), "--context", "there")
    assert taken.code == 2
    assert "there is a context there already" in taken.err
    newcomer.ok("member", "install", str(file))


def _some_context(on: Cli, keys: OwnerKeys) -> tuple[str, ...]:
    key = KeyPair.new("user")
    Credential.of(keys.mint("x", "user", key.public), key).write(on.folder / "x.creds")
    return ("--url", "nats://h", "--creds", str(on.folder / "x.creds"))


# --- changing a key ---------------------------------------------------------------------------------


def test_where_the_owners_keys_are_a_key_is_changed_at_once_and_its_worker_goes_on(
    owner: Cli, cli: Cli
) -> None:
    called = name()
    creds = Path(owner.ok("member", "add", called, "--role", "worker", "-o", "json").one["creds"])
    former = Credential.read(creds)
    worker = owner.start("worker", "start", "--name", called, "--runtimetype", called)
    try:
        cli.ok("process", "run", "echo before", "--runtimetype", called)
        done = owner.ok("member", "rotate", called, "-o", "json")
        fresh = Credential.read(creds)
        assert fresh.keypair != former.keypair
        assert (done.one["key"], done.one["role"]) == (fresh.keypair.public, "worker")
        assert done.one["key_since"] > done.one["approved_at"]
        assert f"no longer lets {called} with the key {former.keypair.public[:8]}... in" in done.err
        run = cli.ok("process", "run", "echo after", "--runtimetype", called, "-o", "json").one
        assert (run["worker"], run["output"]) == (called, "after")
        assert worker.poll() is None
    finally:
        worker.terminate()
        _, said = worker.communicate(timeout=30)
    assert worker.returncode == 0, said
    assert "going on with the new one" in said
    assert not [finding for finding in findings(cli) if called in (finding["subject"] or "")]


def findings(cli: Cli) -> list[dict[str, Any]]:
    report = cli("ledger", "verify", "--from-start", "-o", "json").lines[-1]
    found: list[dict[str, Any]] = report["findings"]
    return found


def test_elsewhere_a_key_is_changed_by_request_and_the_worker_says_what_to_do(
    owner: Cli, newcomer: Cli, cli: Cli
) -> None:
    called, creds = joined(owner, newcomer, "worker")
    former = Credential.read(creds)
    worker = newcomer.start("worker", "start", "--runtimetype", called)
    cli.ok("process", "run", "echo before", "--runtimetype", called)
    again = ("member", "rotate", "--out", str(newcomer.folder / "change.request"))
    done = newcomer.ok(*again, "-o", "json").one
    assert (done["name"], done["former"]) == (called, former.keypair.public)
    approved = owner.ok("member", "approve", done["request"], "--yes")
    assert f"{called} asks to change its key, from {former.keypair.public} to {done['key']}" in approved.err

    out, err = worker.communicate(timeout=60)
    assert worker.returncode == 4, out
    assert "install the new one" in err
    assert Credential.read(creds) == former
    refused = newcomer("member", "ls")
    assert refused.code == 4
    assert "replaced by a new key" in refused.err
    newcomer.ok("member", "install", str(newcomer.folder / "change.approval"))
    assert Credential.read(creds).keypair.public == done["key"]
    assert newcomer.ok("context", "get", "-o", "json").one["creds"] == str(creds)
    tail = cli.ok("ledger", "tail", "--from", "1", "-o", "json").lines
    (told,) = [e for e in tail if (e["event"], e["entity"]) == ("member.rotated", f"member {called}")]
    assert told["verdict"] == "valid"
    assert told["detail"] == f"{done['key']} in the place of {former.keypair.public}"
    worker = newcomer.start("worker", "start", "--runtimetype", called)
    cli.ok("process", "run", "echo after", "--runtimetype", called)
    worker.terminate()
    worker.communicate(timeout=30)
    assert not [finding for finding in findings(cli) if called in (finding["subject"] or "")]


def test_a_change_that_cannot_be_approved_is_refused(owner: Cli, newcomer: Cli) -> None:
    called, _ = joined(owner, newcomer)
    first, second = (newcomer.folder / f"{n}.request" for n in ("first", "second"))
    for path in (first, second):
        newcomer.ok("member", "rotate", "--out", str(path))
    owner.ok("member", "approve", str(first), "--yes")
    before = owner.last_sequence()
    stale = owner("member", "approve", str(second), "--yes")
    assert stale.code == 2
    assert f"{called} has another key by now" in stale.err
    rewritten(second, former=parse_request(first.read_text()).key)
    forged = owner("member", "approve", str(second), "--yes")
    assert forged.code == 2
    assert "it was altered" in forged.err
    assert owner.last_sequence() == before
    newcomer.ok("member", "install", str(first.with_suffix(".approval")))
    owner.ok("member", "revoke", called, "--yes")
    newcomer.ok("member", "rotate", "--out", str(newcomer.folder / "late.request"))
    late = owner("member", "approve", str(newcomer.folder / "late.request"), "--yes")
    assert late.code == 2
    assert "no member any more" in late.err


def test_nobody_changes_the_key_of_another(cli: Cli) -> None:
    done = cli("member", "rotate", "bob")
    assert done.code == 4
    assert "ann can change its own key only" in done.err
