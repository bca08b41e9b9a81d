"""`queue pause`, `colony pause`, `worker drain`, and what shows that they hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.conftest import Cli


@pytest.fixture
def queue(cli: Cli) -> str:
    """The queue of a process that waits where no worker of this colony comes."""
    cli.submit("sleep", runtimetype="nobodys")
    queues = cli.until(
        lambda: cli.ok("queue", "ls", "--runtimetype", "nobodys", "-o", "json").lines, "it is shown"
    )
    return str(queues[0]["id"])


@pytest.fixture
def resumed(owner: Cli) -> Iterator[None]:
    """Other tests share this colony."""
    yield
    owner("colony", "resume")
    owner("worker", "resume", "py1")


def test_a_paused_queue_says_by_whom_and_why(cli: Cli, owner: Cli, queue: str) -> None:
    done = owner.ok("queue", "pause", queue[:6], "--reason", "the licence server is down", "-o", "json")
    assert done.one == {"id": queue, "paused": True}
    [shown] = cli.ok("queue", "ls", "--runtimetype", "nobodys", "-o", "json").lines
    assert shown["paused"]["by"] == "owner"
    assert shown["paused"]["reason"] == "the licence server is down"
    assert "PAUSED by owner: the licence server is down" in cli.ok("queue", "ls").out
    assert f"paused    queue {queue} since " in cli.ok("colony", "get").out
    again = owner("queue", "pause", queue)
    assert (again.code, again.out) == (1, "")
    assert again.err == f"colonies: queue {queue}: the queue is paused already, by owner\n"
    assert owner.ok("queue", "resume", queue).out == f"queue {queue} is no longer paused\n"
    [shown] = cli.ok("queue", "ls", "--runtimetype", "nobodys", "-o", "json").lines
    assert shown["paused"] is None
    assert owner("queue", "resume", queue).code == 1


def test_only_an_owner_pauses_what_there_is(cli: Cli, owner: Cli, queue: str) -> None:
    before = cli.last_sequence()
    assert cli("queue", "pause", queue).code == 4
    assert cli("colony", "pause").code == 4
    assert cli("worker", "drain", "py1").code == 4
    assert owner("queue", "pause", "zzzz").code == 5
    assert owner("worker", "drain", "nobody").code == 5
    assert owner("worker", "drain", "ann").code == 5
    assert owner("queue", "pause", queue, "--reason", "x" * 1_001).code == 2
    assert owner("queue", "pause", queue[:1]).code == 2
    assert owner("colony", "resume").err == "colonies: colony: the colony is not paused\n"
    assert cli.last_sequence() == before


@pytest.mark.usefixtures("resumed")
def test_a_paused_colony_runs_nothing_until_it_is_resumed(cli: Cli, owner: Cli) -> None:
    assert owner.ok("colony", "pause", "--reason", "a power cut").out == "colony test is paused\n"
    found = cli.ok("colony", "get", "-o", "json").one
    assert set(found) == {
        *("name", "key", "lease_s", "members", "queues", "paused", "paused_queues", "drained")
    }
    assert (found["name"], found["paused"]["by"], found["paused"]["reason"]) == (
        "test",
        "owner",
        "a power cut",
    )
    id = cli.submit("double", 2, runtimetype="python")
    assert "PAUSED by owner: a power cut" in cli.ok("queue", "ls", "--runtimetype", "python").out
    assert cli.get(id)["state"] == "waiting"
    assert owner.ok("colony", "resume", "-o", "json").one == {"name": "test", "paused": False}
    cli.until(lambda: cli.get(id)["state"] == "successful", "it goes on")
    assert cli.ok("colony", "get", "-o", "name").out == "test\n"


@pytest.mark.usefixtures("resumed")
def test_a_drained_worker_is_shown_as_such_and_takes_nothing(cli: Cli, owner: Cli) -> None:
    assert owner.ok("worker", "drain", "py1", "--reason", "new disks").out == "worker py1 is drained\n"
    workers = {item["name"]: item for item in cli.ok("worker", "ls", "-o", "json").lines}
    assert workers["py1"]["state"] == "alive"
    assert (workers["py1"]["drained"]["by"], workers["py1"]["drained"]["reason"]) == ("owner", "new disks")
    assert workers["unix1"]["drained"] is None
    assert "alive, DRAINED by owner: new disks" in cli.ok("worker", "ls").out
    id = cli.submit("double", 2, runtimetype="python")
    cli.ok("process", "run", "true", "--runtimetype", "cli")
    (queue,) = cli.ok("queue", "ls", "--runtimetype", "python", "-o", "json").lines
    assert (queue["workers"], queue["drained"]) == (["py1"], ["py1"])
    assert "DRAINED: py1 " in cli.ok("queue", "ls").out
    assert cli.get(id)["state"] == "waiting"
    assert owner.ok("worker", "resume", "py1", "-o", "name").out == "py1\n"
    cli.until(lambda: cli.get(id)["state"] == "successful", "it goes on")
