"""`colonies context`: option over environment over context."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Cli


def submitter(cli: Cli, *options: str, **environment: str) -> str:
    spec = json.dumps({"func": "nobody", "conditions": {"runtimetype": "nothing-serves-this"}})
    done = cli.ok("process", "submit", "--spec", "-", "-o", "json", *options, stdin=spec, **environment)
    return str(done.one["submitter"])


def test_an_option_goes_before_the_environment_and_that_before_the_context_in_use(
    cli: Cli, colony_folder: Path
) -> None:
    bob = str(colony_folder / "home" / "bob.creds")
    assert submitter(cli) == "ann"
    assert submitter(cli, COLONIES_CONTEXT="bob") == "bob"
    assert submitter(cli, "--context", "ann", COLONIES_CONTEXT="bob") == "ann"
    assert submitter(cli, COLONIES_CREDS=bob) == "bob"
    ann = str(colony_folder / "home" / "ann.creds")
    assert submitter(cli, "--creds", ann, COLONIES_CREDS=bob) == "ann"


def test_the_url_of_the_environment_goes_before_the_context_and_the_option_before_it(cli: Cli) -> None:
    real = cli.ok("context", "get", "-o", "json").one["url"]
    assert cli.ok("context", "get", "-o", "json", COLONIES_URL="nats://h:1").one["url"] == "nats://h:1"
    shown = cli.ok("context", "get", "-o", "json", "--url", real, COLONIES_URL="nats://h:1").one
    assert shown["url"] == real


def test_the_first_context_is_in_use_and_use_changes_that(
    alone: Cli, colony_folder: Path, tmp_path: Path
) -> None:
    ann, bob = (str(colony_folder / "home" / f"{name}.creds") for name in ("ann", "bob"))
    alone.ok("context", "add", "one", "--url", "nats://one:4222", "--creds", ann)
    alone.ok("context", "add", "two", "--url", "tls://two", "--creds", bob)
    contexts = alone.ok("context", "ls", "-o", "json").lines
    assert [(c["name"], c["in_use"]) for c in contexts] == [("one", True), ("two", False)]
    alone.ok("context", "use", "two")
    assert alone.ok("context", "get", "-o", "name").out == "two\n"
    assert alone.ok("context", "ls", "-o", "name").out == "one\ntwo\n"
    alone.ok("context", "rm", "two")
    assert alone.ok("context", "ls", "-o", "name").out == "one\n"
    assert alone("context", "get").code == 5
    assert alone("context", "rm", "two").code == 5
    assert alone("context", "use", "two").code == 5


def test_a_context_holds_paths_that_are_good_from_everywhere(
    alone: Cli, colony_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "my.creds").write_bytes((colony_folder / "home" / "ann.creds").read_bytes())
    alone.ok("context", "add", "one", "--url", "nats://one", "--creds", "my.creds", cwd=tmp_path)
    assert alone.ok("context", "get", "one", "-o", "json").one["creds"] == str(tmp_path / "my.creds")


def test_a_context_with_the_owners_keys_makes_members(
    alone: Cli, cli: Cli, colony_folder: Path, tmp_path: Path
) -> None:
    home = colony_folder / "home"
    url = cli.ok("context", "get", "-o", "json").one["url"]
    (tmp_path / "owner.creds").write_bytes((home / "owner.creds").read_bytes())
    alone.ok(
        *("context", "add", "mine", "--url", url, "--creds", str(tmp_path / "owner.creds")),
        *("--keys", str(home / "keys" / "owner")),
    )
    added = alone.ok("member", "add", "ines", "--role", "user", "-o", "json").one
    assert added["creds"] == str(tmp_path / "ines.creds")


def test_what_is_no_context_is_refused(alone: Cli, tmp_path: Path, colony_folder: Path) -> None:
    ann = str(colony_folder / "home" / "ann.creds")
    junk = tmp_path / "junk.creds"
    junk.write_text("junk")
    for code, arguments in (
        (2, ("add", "one")),
        (2, ("add", "one", "--url", "nats://one")),
        (2, ("add", "a.b", "--url", "nats://one", "--creds", ann)),
        (2, ("add", "one", "--url", "http://one", "--creds", ann)),
        (2, ("add", "one", "--url", "one:4222", "--creds", ann)),
        (2, ("add", "one", "--url", "nats://one", "--creds", str(junk))),
        (5, ("add", "one", "--url", "nats://one", "--creds", str(tmp_path / "nosuch.creds"))),
        (5, ("add", "one", "--url", "nats://one", "--creds", ann, "--keys", str(tmp_path / "nosuch"))),
    ):
        assert alone("context", *arguments).code == code, arguments
    assert alone.ok("context", "ls", "-o", "name").out == ""
