"""`colonies member`: who belongs to the colony, and who does no longer."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from tests.cli.conftest import Cli

KEY = re.compile(r"U[A-Z2-7]{55}")


def test_add_makes_a_member_with_a_credential_of_its_own(owner: Cli, cli: Cli, tmp_path: Path) -> None:
    creds = tmp_path / "dora.creds"
    done = owner.ok("member", "add", "dora", "--role", "user", "--out", str(creds), "-o", "json")
    assert set(done.one) == {"name", "role", "key", "state", "approved_at", "revoked_at", "creds"}
    assert (done.one["name"], done.one["role"], done.one["state"]) == ("dora", "user", "active")
    assert KEY.fullmatch(done.one["key"])
    assert done.one["creds"] == str(creds)
    assert stat.S_IMODE(creds.stat().st_mode) == 0o600
    shown = cli.ok("process", "run", "true", "--runtimetype", "cli", "--creds", str(creds), "-o", "json").one
    assert shown["submitter"] == "dora"


def test_add_keeps_the_credential_with_the_others_by_default(owner: Cli) -> None:
    path = Path(owner.ok("member", "add", "emil", "--role", "observer", "-o", "json").one["creds"])
    assert path.name == "emil.creds"
    assert path.exists()


def test_add_overwrites_no_file_and_leaves_none_of_a_refused_name(owner: Cli, tmp_path: Path) -> None:
    path = tmp_path / "there.creds"
    path.write_text("mine")
    assert owner("member", "add", "fred", "--role", "user", "--out", str(path)).code == 2
    assert path.read_text() == "mine"
    taken = tmp_path / "taken.creds"
    assert owner("member", "add", "ann", "--role", "user", "--out", str(taken)).code == 1
    assert not taken.exists()


def test_ls_lists_all_members_in_every_form(cli: Cli) -> None:
    members = cli.ok("member", "ls", "-o", "json").lines
    by_name = {member["name"]: member for member in members}
    assert {"owner", "orchestrator", "ann", "bob", "unix1"} <= by_name.keys()
    assert by_name["owner"]["role"] == "owner"
    assert cli.ok("member", "ls", "-o", "name").out.split() == [member["name"] for member in members]
    header = cli.ok("member", "ls").out.splitlines()[0]
    assert header.split() == ["NAME", "ROLE", "STATE", "APPROVED", "REVOKED", "KEY"]


def test_a_revoked_member_is_out_at_once_and_its_name_is_used_up(
    owner: Cli, cli: Cli, tmp_path: Path
) -> None:
    creds = tmp_path / "gina.creds"
    owner.ok("member", "add", "gina", "--role", "user", "--out", str(creds))
    listening = cli.start("ledger", "tail", "-f", "--creds", str(creds))
    assert listening.stdout is not None
    listening.stdout.readline()
    done = owner.ok("member", "revoke", "gina", "--reason", "left", "--yes")
    assert done.out == "gina is revoked\n"
    assert listening.wait(timeout=20) == 4
    assert "Traceback" not in listening.communicate()[1]
    cli.until(
        lambda: cli("process", "ls", "--creds", str(creds)).code == 4, "the broker lets gina in no more"
    )
    (member,) = [m for m in cli.ok("member", "ls", "-o", "json").lines if m["name"] == "gina"]
    assert member["state"] == "revoked"
    assert owner("member", "add", "gina", "--role", "user", "--out", str(tmp_path / "x.creds")).code == 1
    assert owner("member", "revoke", "gina", "--yes").code == 1


def test_revoke_says_whether_the_broker_has_dropped_the_member(owner: Cli) -> None:
    owner.ok("member", "add", "hugo", "--role", "user")
    assert "the broker no longer lets hugo in" in owner.ok("member", "revoke", "hugo", "--yes").err


def test_revoke_asks_first_and_without_a_terminal_wants_yes(owner: Cli) -> None:
    done = owner("member", "revoke", "ann")
    assert done.code == 2
    assert "say --yes" in done.err


def test_revoke_does_nothing_unless_the_answer_is_yes(owner: Cli) -> None:
    for answer, code in ((b"n\n", 1), (b"\x04", 130)):
        mine, theirs = os.openpty()
        process = owner.start("member", "revoke", "unix1", stdin=theirs)
        os.write(mine, answer)
        _, err = process.communicate(timeout=30)
        os.close(mine)
        os.close(theirs)
        assert process.returncode == code
        assert "Revoke unix1?" in err
    by_name = {member["name"]: member for member in owner.ok("member", "ls", "-o", "json").lines}
    assert by_name["unix1"]["state"] == "active"


def test_revoking_nobody_is_not_found(owner: Cli) -> None:
    assert owner("member", "revoke", "nobody", "--yes").code == 5


def test_only_an_owner_revokes(cli: Cli) -> None:
    done = cli("member", "revoke", "bob", "--yes")  # although the owner's file lies beside ann's
    assert done.code == 4
    assert "ann is no owner" in done.err
