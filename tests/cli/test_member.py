"""`colonies member`: who belongs to the colony, and who does no longer."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

KEY = re.compile(r"U[A-Z2-7]{55}")


def test_add_makes_a_member_with_a_credential_of_its_own(owner: Cli, cli: Cli, tmp_path: Path) -> None:
    creds = tmp_path / "dora.creds"
    done = owner.ok("member", "add", "dora", "--role", "user", "--out", str(creds), "-o", "json")
    assert set(done.one) == {
        *("name", "role", "key", "state", "approved_at", "key_since", "expires_at", "revoked_at", "creds"),
    }
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
    assert header.split() == ["NAME", "ROLE", "STATE", "SINCE", "UNTIL", "KEY"]


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


def test_a_member_with_an_end_ends_by_itself_and_is_told_what_to_do(
    owner: Cli, cli: Cli, tmp_path: Path
) -> None:
    creds = str(tmp_path / "brief.creds")
    made = owner.ok(
        "member", "add", "brief", "--role", "user", "--expires", "4s", "--out", creds, "-o", "json"
    )
    assert made.one["state"] == "active"
    assert made.one["expires_at"] > made.one["approved_at"]
    listening = cli.start("ledger", "tail", "-f", "--creds", creds)
    assert listening.wait(timeout=30) == 4  # the broker drops it
    assert "brief" in listening.communicate()[1]

    def turned_away() -> re.Match[str] | None:  # the broker counts whole seconds, and drops who is in
        done = cli("process", "ls", "--creds", creds)
        said = re.search(r"it expired at 20\S+Z; ask an owner .*`colonies member request`", done.err)
        return said if done.code == 4 else None

    cli.until(turned_away, "the broker lets it in no more, and the command says why")
    (member,) = [m for m in cli.ok("member", "ls", "-o", "json").lines if m["name"] == "brief"]
    assert member["state"] == "expired"
    (row,) = [line.split() for line in cli.ok("member", "ls").out.splitlines() if line.startswith("brief ")]
    assert row[1:3] == ["user", "expired"]
    assert row[4][:19] == member["expires_at"][:19]
    assert owner("member", "add", "brief", "--role", "user").code == 1


@pytest.mark.parametrize("bad", ["", "1", "h", "-1h", "0s", "1.5h", "1w", "366d", "1h30m", "\u0661h"])
def test_a_time_that_is_none_is_refused(owner: Cli, bad: str) -> None:
    before = owner.last_sequence()
    done = owner("member", "add", "never", "--role", "user", f"--expires={bad}")
    assert done.code == 2
    assert "such as 90s or 12h" in done.err
    assert owner.last_sequence() == before


def test_a_missing_credential_is_named_with_what_to_do(cli: Cli, tmp_path: Path) -> None:
    done = cli("process", "ls", "--creds", str(tmp_path / "none.creds"))
    assert done.code == 5
    assert "none.creds; ask for one with `colonies member request`" in done.err


def test_revoke_says_whether_the_broker_has_dropped_the_member(owner: Cli) -> None:
    owner.ok("member", "add", "hugo", "--role", "user")
    said = owner.ok("member", "revoke", "hugo", "--yes").err
    assert re.search(r"the broker no longer lets hugo with the key U\w{7}\.\.\. in", said)


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
