"""The vectors are what the script makes, readers agree with them, and no event and no rule is left out."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, get_args

import msgpack
import pytest

from colonies import codec, sealing, webhooks
from colonies.core import units
from colonies.core.colony import Colony
from colonies.core.due import Schedule
from colonies.core.events import Event
from colonies.core.generators import run_id
from colonies.core.limits import digest_of
from colonies.core.process import keyed_id
from colonies.core.spec import Conditions, queue_of
from colonies.core.states import derived_id
from colonies.history import History
from colonies.ledger import Stored
from colonies.nkeys import KeyPair, verify
from tests.sentences import sentences
from tests.vectors.making import FOLDER, made
from tests.vectors.telling import NO_EVENT, SECOND

# What no ledger of a few events can show.
NOT_SHOWN = {
    "the colony has … queues, and cannot have more",  # it takes 1,000 of them
    "… is not an event of a process",  # such a type does not fit its subject, which is found first
    "it stands before the colony's genesis",  # nobody is a member there, which is found first
    "… is not an event of a …",  # as for a process
    "… is not an event of a workflow",
    "the process has … signals, and takes no more",  # it takes 1,000 of them
    "the workflow has … signals, and takes no more",
    "the workflow has … parts, and takes no more",
    "its parts have more than … nodes",
    "crons of this name were added … times; take another name",
    "the cron was paused … times, and is not again",
    "… is not an event of a cron",
    "… is not an event of a generator",
    "the generator has … arguments, and takes no more",
    "run … was submitted already",  # its workflow is, which is found first
    # Who cancels such a process is told of its parts first; one that began with them keeps them.
    "a node that maps is one process until its parts are known, and from then on these",
}
RULES = set(sentences(("quarantined", "denied", "void")))


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return found


def test_the_files_are_what_the_script_makes() -> None:
    texts = made()
    assert {path.name for path in FOLDER.glob("*.json")} == texts.keys()
    for name, text in texts.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, "run: python -m tests.vectors"


def test_a_reader_gives_each_message_its_verdict() -> None:
    told = read("ledger.json")
    history = History(Colony(told["colony"]))
    for row in told["messages"]:
        stored = Stored(row["subject"], row["sequence"], row["time"], bytes.fromhex(row["data"]))
        judged = history.add(stored)
        assert judged.verdict.kind == row["verdict"], row
        assert judged.verdict.rule.startswith(row["rule"]), row
        assert (judged.record.digest.hex() if judged.record else None) == row["digest"]
    for row in told["processes"]:
        process = history.processes[row["process"]]
        assert (process.state, process.head.hex()) == (row["state"], row["head"])
    assert history.colony.lease_s == told["lease_s"]


def test_every_type_of_event_is_among_them_valid_and_quarantined() -> None:
    found: dict[str, set[str]] = {"valid": set(), "quarantined": set(), "void": set()}
    for row in read("ledger.json")["messages"]:
        if row["digest"] is not None:
            opened = codec.open_(read("ledger.json")["colony"], row["subject"], bytes.fromhex(row["data"]))
            found[row["verdict"]].add(opened.type)
    types = {kind.__dataclass_fields__["type"].default for kind in get_args(Event)}
    assert found["valid"] == types
    assert found["quarantined"] == types
    of_processes = {f"process.{name}" for name in ("released", "assigned", "completed", "cancelled")}
    assert found["void"] == of_processes | {"workflow.submitted"}


@pytest.mark.parametrize("rule", sorted(RULES - NOT_SHOWN))
def test_every_rule_is_broken_once(rule: str) -> None:
    pattern = re.compile(re.escape(rule).replace("…", ".*"))
    told = {row["rule"] for row in read("ledger.json")["messages"]}
    assert rule.startswith(NO_EVENT) or any(pattern.fullmatch(said) for said in told)


def test_the_seeds_are_those_of_the_keys() -> None:
    keys = read("keys.json")
    for said in (keys["account"], *keys["members"].values()):
        assert KeyPair.from_seed(said["seed"]).public == said["public"]
    for said in keys["signatures"]:
        good = verify(said["key"], bytes.fromhex(said["signed"]), bytes.fromhex(said["signature"]))
        assert good == said["good"]


def test_envelopes_are_opened_or_not() -> None:
    told = read("envelopes.json")
    for said in told["envelopes"]:
        data = bytes.fromhex(said["data"])
        if said["event"]:
            opened = codec.open_(told["colony"], said["subject"], data)
            opened.event()
            assert (opened.signed.hex(), opened.digest.hex()) == (said["signed"], said["digest"])
        else:
            with pytest.raises(codec.Malformed):
                codec.open_(told["colony"], said["subject"], data).event()
    assert {said["event"] for said in told["envelopes"]} == {True, False}


def test_names_derive_as_they_say() -> None:
    told = read("names.json")
    for said in told["queues"]:
        conditions = Conditions.parse(said["conditions"])
        assert msgpack.packb([conditions.canonical(), said["priority"]]).hex() == said["packed"]
        assert queue_of(conditions, said["priority"]) == said["queue"]
    assert all(units.rung(size) == rung for size, rung in told["rungs"])
    assert all(digest_of(said["key"]) == said["limit"] for said in told["limits"])
    for what, said in [*((s["of"], s) for s in told["spans"]), *(("trace", s) for s in told["traces"])]:
        hashed = hashlib.sha256(
            f"colonies trace\0{what}\0{told['colony']}\0{said['id']}".encode()
        ).hexdigest()
        assert hashed.startswith(said["trace" if what == "trace" else "span"])
    cron, run = told["runs"]
    assert run["workflow"] == run_id(run["name"], run["added"], run["of"])
    of_cron = derived_id("cron", cron["name"], str(cron["added"]), str(cron["of"]))
    assert cron["workflow"] == of_cron
    assert all(keyed_id(said["submitter"], said["key"]) == said["process"] for said in told["keyed"])


def test_who_has_the_key_opens_the_secret_of_a_webhook() -> None:
    told, eye = read("ledger.json"), KeyPair.from_seed(read("keys.json")["members"]["eye"]["seed"])
    row = next(row for row in told["messages"] if ".webhook.ops.added." in row["subject"])
    said = codec.open_(told["colony"], row["subject"], bytes.fromhex(row["data"])).data
    about = webhooks.about(told["colony"], "ops", said["url"])
    assert said["key"] == eye.public
    assert sealing.open_sealed(said["secret"], eye, about) == bytes(range(32))


def test_crons_are_due_when_they_say() -> None:
    """Asked the other way round: which of the seconds near it are due."""
    for said in read("due.json")["crons"]:
        schedule = Schedule(*(said[name] for name in ("cron", "interval_s", "zone", "jitter_s")))
        for time, starts in zip(said["due"], said["starts"], strict=True):
            near = [
                time + n * SECOND
                for n in range(-3, 4)
                if schedule.is_due(time + n * SECOND, said["added_at"])
            ]
            assert near == [time]
            assert time <= starts <= time + said["jitter_s"] * SECOND
