"""Lists of the projector: filters, pages, sorts, times; and how the views themselves stand."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Cli


def ids(cli: Cli, *options: str) -> list[str]:
    return cli.ok("process", "ls", *options, "-o", "name").out.split()


def test_a_list_is_gone_through_page_by_page_or_whole(cli: Cli) -> None:
    made = [cli.submit("echo", str(number), runtimetype="nobody", label="paged") for number in range(7)]
    whole = ids(cli, "--label", "paged")
    assert whole == made[::-1]
    assert ids(cli, "--label", "paged", "--all") == whole
    assert ids(cli, "--label", "paged", "--sort", "submitted") == made
    first = cli.ok("process", "ls", "--label", "paged", "--limit", "3", "-o", "name")
    assert first.out.split() == whole[:3]
    assert first.err.startswith("colonies: there are more: --all shows them all, --cursor ")
    cursor = first.err.split("--cursor ")[1].split()[0]
    assert ids(cli, "--label", "paged", "--cursor", cursor) == whole[3:]
    wrong = cli("process", "ls", "--label", "other", "--cursor", cursor)
    assert (wrong.code, wrong.out) == (2, "")
    assert "cursor: it is of another question" in wrong.err


def test_a_list_since_an_age_is_gone_through_page_by_page(cli: Cli) -> None:
    made = [cli.submit("echo", str(number), runtimetype="nobody", label="aged") for number in range(3)]
    asked = ("--label", "aged", "--since", "1h", "--limit", "2")
    first = cli.ok("process", "ls", *asked, "-o", "name")
    cursor = first.err.split("--cursor ")[1].split()[0]
    assert first.out.split() + ids(cli, *asked, "--cursor", cursor) == made[::-1]
    wrong = cli("process", "ls", *asked[:2], "--since", "2h", "--cursor", cursor)
    assert "cursor: it is of another question" in wrong.err
    other = cli("process", "ls", *asked[:2], "--since", "2026-01-01", "--cursor", cursor)
    assert "cursor: it is of another question" in other.err
    for text in ("x", "W10", "W1tdLFsxLDFdXQ"):  # no cursor; one of nothing; one of another question
        assert "cursor: it is " in cli("process", "ls", *asked, "--cursor", text).err


def test_a_process_is_listed_and_found_by_its_name(cli: Cli) -> None:
    plain = cli.submit("echo", runtimetype="nobody", label="name-or-not")
    assert cli.ok("process", "ls", "--label", "name-or-not").out.splitlines()[0].endswith("  FUNC")
    named = cli.submit("echo", runtimetype="nobody", label="name-or-not", name="nightly-3")
    header, *rows = cli.ok("process", "ls", "--label", "name-or-not").out.splitlines()
    assert header.endswith("  FUNC (NAME)")
    assert [row.split("  ")[-1] for row in rows] == ["echo (nightly-3)", "echo"]
    assert ids(cli, "--name", "nightly-3") == ids(cli, "--text", "nightly-3") == [named]
    assert ids(cli, "--name", "nightly") == []
    shown = cli.get(named)
    assert (shown["name"], cli.get(plain)["name"]) == ("nightly-3", None)
    assert "name          nightly-3\n" in cli.ok("process", "get", named).out
    assert cli.ok("process", "cancel", "--name", "nightly-3", "--yes").out.startswith(
        "1 process: 1 cancelled"
    )
    assert cli.ok("process", "ls", "--name", "nightly-3", "-o", "json").one["name"] == "nightly-3"
    cli.ok("process", "cancel", plain)


def test_a_list_is_as_it_was_at_a_sequence(cli: Cli) -> None:
    first = cli.submit("echo", runtimetype="nobody", label="past")
    then = str(cli.last_sequence())
    second = cli.submit("echo", runtimetype="nobody", label="past")
    cli.ok("process", "cancel", first)
    assert ids(cli, "--label", "past") == [second, first]
    assert ids(cli, "--label", "past", "--at", then) == [first]
    assert ids(cli, "--label", "past", "--state", "waiting", "--at", then) == [first]
    assert ids(cli, "--label", "past", "--state", "waiting") == [second]
    assert ids(cli, "--label", "past", "--until", then) == []
    assert ids(cli, "--label", "past", "--since", then) == [second, first]
    queues = cli.ok("queue", "ls", "--runtimetype", "nobody", "--at", then, "-o", "json").lines
    assert sum(queue["waiting"] for queue in queues) >= 1


def test_several_states_are_asked_for_with_commas_or_one_by_one(cli: Cli) -> None:
    first, second, third = (cli.submit("echo", runtimetype="nobody", label="states") for _ in range(3))
    done = cli.submit("true", label="states")
    cli("process", "watch", done)
    cli.ok("process", "cancel", first)
    label = ("--label", "states")
    assert ids(cli, *label, "--state", "cancelled,successful") == [done, first]
    assert ids(cli, *label, "--state", "successful", "--state", "cancelled") == [done, first]
    assert ids(cli, *label, "--state", "waiting, cancelled", "--limit", "2") == [third, second]
    wrong = cli("process", "ls", "--state", "waiting,lost")
    assert (wrong.code, wrong.out) == (2, "")
    assert "--state: 'lost' is no state; allowed: blocked, waiting," in wrong.err
    found = cli.ok("process", "cancel", *label, "--state", "waiting,successful", "--dry-run", "-o", "name")
    assert set(found.out.split()) == {second, third}  # what is successful is left as it is
    cli.ok("process", "cancel", second, third)


def test_words_are_found(cli: Cli) -> None:
    made = cli.submit("transmogrify", "duplicator", runtimetype="nobody")
    assert ids(cli, "--text", "transmog duplic") == [made]
    assert ids(cli, "--text", "transmog nothing") == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--since", "yesterday"), "--since: 'yesterday' is no moment"),
        (("--since", "999999999"), "--since: there is no sequence 999999999"),
        (("--at", "tomorrow"), "'tomorrow' is no moment"),
        (("--sort", "colour"), "sort: 'colour' is not one; allowed: submitted, ended"),
        (("--text", "!"), "text: '!'; allowed: words of letters or digits"),
        (("--cursor", "x"), "cursor: it is none of ours"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(cli: Cli, options: tuple[str, str], said: str) -> None:
    done = cli("process", "ls", *options)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_the_views_say_how_they_stand_and_are_built_anew(cli: Cli, owner: Cli) -> None:
    cli.submit("echo", runtimetype="nobody")
    last = cli.last_sequence()
    before = {
        line["view"]: line for line in cli.ok("projection", "ls", "--at", str(last), "-o", "json").lines
    }
    assert {"processes", "workflows", "workers", "queues"} <= set(before)
    for line in before.values():
        assert line["counted_at"] == last
        assert len(line["checksum"]) == 32
        assert line["lag_events"] >= 0
    done = owner.ok("projection", "rebuild", "-o", "json").one
    assert done["rebuilt"] is True
    after = cli.ok("projection", "ls", "--at", str(last), "-o", "json").lines
    assert {line["view"]: line["checksum"] for line in after} == {
        view: line["checksum"] for view, line in before.items()
    }
    table = cli.ok("projection", "ls").out
    assert table.startswith("VIEW")
    assert "0 events, 0 s" in table
    unknown = cli("projection", "ls", "--projector", "nobody")
    assert unknown.code == 5
    assert "no projector nobody answers; there are: " in unknown.err
