"""`colonies webhook`: events sent to a real receiver, by the running colony's service."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks

from tests.cli.conftest import ROOT, Cli

RECEIVER = ROOT / "tests" / "webhooks" / "receiver.py"


class Receiver:
    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def requests(self) -> list[dict[str, Any]]:
        file = self.folder / "requests"
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    folder = tmp_path / "receiver"
    folder.mkdir()
    command = [sys.executable, str(RECEIVER), "0", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        yield Receiver(folder, int(running.stdout.readline()))
        running.kill()


@pytest.fixture
def name(owner: Cli) -> Iterator[str]:
    """A name for a webhook, which is removed in the end."""
    name = f"w{secrets.token_hex(4)}"
    yield name
    owner("webhook", "rm", name)


def test_a_webhook_from_its_first_day_to_its_last(owner: Cli, receiver: Receiver, name: str) -> None:
    added = owner.ok("webhook", "add", name, receiver.url("ok"), "--events", "process.queued, process.failed")
    assert added.out.splitlines()[0] == f"webhook {name} added; webhooks sends to it"
    secret = added.out.splitlines()[1].partition("secret, shown only now: ")[2]
    assert added.err == ""
    tested = owner.ok("webhook", "test", name)
    assert tested.out.startswith(f"webhook {name} answered 200 in ")
    id = owner.submit("echo", "hello", runtimetype="nobody")
    owner.until(lambda: len(receiver.requests()) >= 2, "the test and the event")
    library = standardwebhooks.Webhook(secret)
    test, event = [library.verify(r["body"], r["headers"]) for r in receiver.requests()]
    assert (test["type"], test["subject"]) == ("colonies.webhook.test", f"webhook/{name}")
    assert (event["type"], event["subject"]) == ("colonies.process.queued", f"process/{id}")
    said = owner.until(lambda: _of(owner, name, delivered=1), "one is delivered")
    assert (said["state"], said["pending"], said["dead"]) == ("active", 0, 0)
    assert said["events"] == ["process.queued", "process.failed"]
    assert (said["service"], said["member"]) == ("webhooks", "owner")
    assert name in owner.ok("webhook", "ls", "-o", "name").out.split()
    listed = [line.split()[:3] for line in owner.ok("webhook", "ls").out.splitlines()]
    assert [name, "active", "1"] in listed
    assert owner.ok("webhook", "rm", name, "--reason", "moved").out == f"webhook {name} is removed\n"
    assert owner("webhook", "get", name).code == 5
    owner.ok("process", "cancel", id)


def _of(cli: Cli, name: str, **wanted: object) -> dict[str, Any] | None:
    """What `get` says of it, once it says so."""
    said: dict[str, Any] = cli.ok("webhook", "get", name, "-o", "json").one
    return said if wanted.items() <= said.items() else None


def test_dead_letters_are_shown_and_sent_again(owner: Cli, receiver: Receiver, name: str) -> None:
    (receiver.folder / "status").write_text("500")
    owner.ok("webhook", "add", name, receiver.url("file"), "--events", "process.queued")
    ids = [owner.submit("echo", runtimetype="nobody") for _ in range(2)]
    said = owner.until(lambda: _of(owner, name, dead=2), "two dead letters")
    letters = said["dead_letters"]
    assert [letter["error"] for letter in letters] == ["answered 500"] * 2
    table = owner.ok("webhook", "get", name, "--limit", "1").out
    assert f"{letters[0]['sequence']}" in table
    assert f"{letters[1]['sequence']}" not in table.split("SEQUENCE")[1].split()
    done = owner("webhook", "test", name)
    assert (done.code, done.out) == (1, "")
    assert f"colonies: webhook {name}: answered 500 (in " in done.err
    again = [owner("webhook", "test", name) for _ in range(2)]  # each waits until it may
    assert [(one.code, "answered 500" in one.err) for one in again] == [(1, True)] * 2
    (receiver.folder / "status").write_text("200")
    unknown = ("webhook", "rerun", name, str(letters[0]["sequence"]), "999999")
    assert owner(*unknown).code == 5
    assert _of(owner, name, dead=2) is not None
    owner.ok("webhook", "rerun", name, str(letters[0]["sequence"]), "-o", "json")
    owner.until(lambda: _of(owner, name, delivered=1), "one is delivered")
    owner.ok("webhook", "rerun", name)
    owner.until(lambda: _of(owner, name, delivered=2, dead=0), "both are delivered")
    for id in ids:
        owner.ok("process", "cancel", id)


def test_a_secret_may_be_given_and_is_not_shown_then(
    owner: Cli, receiver: Receiver, name: str, tmp_path: Path
) -> None:
    secret = "whsec_" + "QUJD" * 8
    (tmp_path / "secret").write_text(secret + "\n")
    url = receiver.url("ok")
    added = owner.ok("webhook", "add", name, url, "--secret", str(tmp_path / "secret"), "-o", "json")
    assert added.one["secret"] is None
    owner.ok("webhook", "test", name)
    (request,) = [r for r in receiver.requests() if b"webhook.test" in r["body"].encode()]
    standardwebhooks.Webhook(secret).verify(request["body"], request["headers"])
    changed = owner.ok("webhook", "add", name, url, "--change", "--secret", "-", stdin=secret)
    assert changed.out == f"webhook {name} changed; webhooks sends to it\n"
    named = owner.ok("webhook", "add", name, "--change", "--new-secret", "-o", "name")
    assert named.out == f"{name}\n"
    assert "colonies: the secret, shown only now: whsec_" in named.err


def test_a_change_leaves_what_it_does_not_name(owner: Cli, receiver: Receiver, name: str) -> None:
    url = receiver.url("ok")
    first = ("--events", "process.failed, process.queued", "--func", "train", "--label", "night")
    secret = owner.ok("webhook", "add", name, url, *first, "-o", "json").one["secret"]
    want = {
        "name": name,
        "url": url,
        "events": ["process.failed", "process.queued"],
        "func": "train",
        "label": "night",
        "service": "webhooks",
        "secret": None,
    }

    def changed(*words: str) -> Any:
        return owner.ok("webhook", "add", name, *words, "--change", "-o", "json").one

    assert changed() == want
    assert changed("--label", "day") == (want := want | {"label": "day"})
    assert changed("--func", "") == (want := want | {"func": None})
    assert changed("--events", "workflow.*") == (want := want | {"events": ["workflow.*"]})
    assert changed(url) == want
    owner.ok("webhook", "test", name)
    [request] = receiver.requests()
    standardwebhooks.Webhook(secret).verify(request["body"], request["headers"])
    moved = owner.ok("webhook", "add", name, receiver.url("ok/moved"), "--change", "-o", "json")
    assert {**moved.one, "secret": None} == want | {"url": receiver.url("ok/moved")}
    assert moved.one["secret"].startswith("whsec_")
    assert "the old secret was for another address" in moved.err
    again = changed("--new-secret")
    assert again["secret"] not in (None, moved.one["secret"], secret)


def test_what_goes_out_in_the_clear_is_said(owner: Cli, name: str) -> None:
    added = owner.ok("webhook", "add", name, "http://example.com/hook", "--events", "colony.configured")
    assert "http:// address can be read on its way" in added.err


def test_who_is_no_owner_sends_nothing(cli: Cli, owner: Cli, receiver: Receiver, name: str) -> None:
    assert cli("webhook", "add", name, receiver.url("ok")).code == 4
    owner.ok("webhook", "add", name, receiver.url("ok"), "--events", "colony.configured")
    for words in (("test", name), ("rm", name), ("rerun", name)):
        done = cli("webhook", *words)
        assert done.code == 4, words
        assert "only an owner" in done.err
    assert cli.ok("webhook", "get", name, "-o", "json").one["state"] == "active"
    assert not receiver.requests()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("add", "ops", "ftp://x/"), 2, "url: "),
        (("add", "ops", "https://user:word@x/"), 2, "it holds a user"),
        (("add", "a.b", "https://x/"), 2, "not allowed as a name"),
        (("add", "ops", "https://x/", "--events", "process.fails"), 2, "there is no process.fails"),
        (("add", "ops", "https://x/", "--events", ""), 2, "events: "),
        (("add", "ops", "https://x/", "--secret", "/no/such/file"), 2, "there is no such file"),
        (("add", "ops", "https://x/", "--secret", "/"), 2, "this is a directory"),
        (("add", "ops", "https://x/", "--via", "ann"), 5, "no member of this name with the role observer"),
        (("add", "ops", "https://x/", "--func", ""), 2, "func"),
        (("add", "none", "https://x/", "--change"), 5, "there is no webhook none"),
        (("add", "ops"), 2, "where to send to is not said"),
        (("add", "ops", "https://x/", "--new-secret"), 2, "it is for --change"),
        (("add", "ops", "--change", "--new-secret", "--secret", "-"), 2, "without --secret"),
        (("add", "none", "--change", "--events", "process.fails"), 2, "there is no process.fails"),
        (("get", "none"), 5, "there is no webhook none"),
        (("rm", "none"), 5, "there is no webhook none"),
        (("test", "none"), 5, "there is no webhook none"),
        (("rerun", "none"), 5, "there is no webhook none"),
        (("rerun", "none", "x"), 2, "a whole number"),
    ],
)
def test_what_makes_no_sense_is_refused(owner: Cli, words: tuple[str, ...], code: int, said: str) -> None:
    done = owner("webhook", *words)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "word" not in done.err


def test_a_service_that_does_not_answer_is_named_with_what_to_start(owner: Cli, name: str) -> None:
    done = owner("webhook", "add", name, "https://x/", "--via", "operator", "--events", "colony.configured")
    assert done.code == 0
    listed = owner.ok("webhook", "ls", "-o", "json")
    (item,) = [item for item in listed.lines if item["name"] == name]
    assert (item["state"], item["delivered"], item["url"]) == ("unknown", None, "https://x/")
    assert "operator, which sends to webhooks, does not answer" in listed.err
    assert "colonies server start --only webhooks" in listed.err
    done = owner("webhook", "test", name)
    assert done.code == 6
    assert "colonies server start --only webhooks" in done.err
    assert owner.ok("webhook", "get", name, "-o", "json").one["dead_letters"] == []


def test_webhooks_are_shown_as_they_were(owner: Cli, name: str) -> None:
    before = owner.last_sequence()
    owner.ok("webhook", "add", name, "https://x/one", "--events", "colony.configured")
    added = owner.last_sequence()
    owner.ok("webhook", "add", name, "https://x/two", "--events", "colony.configured", "--change")
    assert name not in owner.ok("webhook", "ls", "--at", str(before), "-o", "name").out.split()
    assert owner("webhook", "get", name, "--at", str(before)).code == 5
    then = owner.ok("webhook", "get", name, "--at", str(added), "-o", "json")
    assert (then.one["url"], then.one["state"], then.one["delivered"]) == ("https://x/one", None, None)
    assert owner.ok("webhook", "get", name, "-o", "json").one["url"] == "https://x/two"
