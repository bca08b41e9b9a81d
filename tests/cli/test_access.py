"""`colonies member token`, and HTTP as `colonies server start` and `colonies dev` run it."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from colonies_projections.http import Listen, open_door

from colonies import bearer
from tests.cli.conftest import Cli


def get(url: str, token: str | None = None) -> tuple[int, Any]:
    """The status and the JSON of an answer."""
    request = urllib.request.Request(url)
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_token_is_printed_and_kept_nowhere(cli: Cli, owner: Cli) -> None:
    done = cli.ok("member", "token", "ann", "--expires", "2h")
    (text,) = done.out.splitlines()
    said = bearer.read(text)
    assert (said.sub, said.exp - said.iat) == ("ann", 7_200)
    assert re.search(r"this token reads as ann \(user\), until 20\d\d-", done.err)
    assert text not in done.err
    assert bearer.read(cli.ok("member", "token", "ann").out.strip()).exp - said.iat < 3_700
    by_owner = owner.ok("member", "token", "ann", "-o", "json").one
    assert by_owner.keys() == {"id", "member", "role", "expires_at", "token"}
    assert (by_owner["member"], by_owner["role"]) == ("ann", "user")
    assert bearer.read(by_owner["token"]).jti == by_owner["id"]
    assert bearer.read(by_owner["token"]).iss != said.iss


def test_a_token_in_a_file_is_for_its_owner_only_and_overwrites_nothing(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "ann.token"
    done = cli.ok("member", "token", "ann", "--out", str(path), "-o", "json")
    assert (done.one["file"], "token" in done.one) == (str(path), False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert bearer.read(path.read_text().strip()).jti == done.one["id"]
    assert cli("member", "token", "ann", "--out", str(path)).code == 2
    shown = cli.ok("member", "token", "ann", "--out", str(tmp_path / "b"), "-o", "name").out.strip()
    assert bearer.read((tmp_path / "b").read_text().strip()).jti == shown
    assert (tmp_path / "b").read_text().strip() not in shown


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ("bob",),
            4,
            "this is the credential of ann, which is no owner; give the --creds of bob, or an owner's",
        ),
        (("ann", "--expires", "31d"), 2, "--expires: a token lasts at most 30d, not 31d"),
        (("ann", "--expires", "0s"), 2, "--expires: '0s' is not allowed"),
        (("ann", "--expires", "soon"), 2, "--expires: 'soon' is not allowed"),
        (("An.n",), 2, "NAME: 'An.n' is not allowed as a name"),
        (("ann", "-o", "name"), 2, "-o name prints no token"),
    ],
)
def test_what_cannot_be_is_said(cli: Cli, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = cli("member", "token", *arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err


def test_an_owner_is_told_that_there_is_no_such_member(owner: Cli) -> None:
    done = owner("member", "token", "nobody")
    assert done.code == 2
    assert "there is no member nobody" in done.err


# --- the server ------------------------------------------------------------------------------------------


def test_the_server_runs_alone_on_a_port_of_its_own(cli: Cli, owner: Cli) -> None:
    running = owner.start("server", "start", "--only", "http", "--listen", "127.0.0.1:0")
    assert running.stdout is not None
    try:
        ready = running.stdout.readline()
        found = re.fullmatch(
            r"ready nats://\S+ context=owner services=http http=(http://127\.0\.0\.1:\d+)\n", ready
        )
        assert found is not None, running.stderr and running.stderr.read()
        token = cli.ok("member", "token", "ann").out.strip()
        id = cli.submit("echo", "hello")
        assert get(f"{found[1]}/v1/processes/{id}", token)[1]["id"] == id
        assert get(f"{found[1]}/v1/processes?limit=1", token)[1]["items"][0]["id"] == id
        assert get(f"{found[1]}/v1/processes")[0] == 401
        assert get(f"{found[1]}/health") == (200, get(f"{found[1]}/health")[1])
        port = found[1].rpartition(":")[2]
        taken = owner("server", "start", "--only", "http", "--listen", f"127.0.0.1:{port}")
        assert taken.code == 6
        assert f"port {port} of 127.0.0.1 is taken by " in taken.err
        assert f"(pid {running.pid})" in taken.err
    finally:
        running.terminate()
        _, err = running.communicate(timeout=60)
    assert running.returncode == 0
    assert token not in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--only", "http", "--listen", "0.0.0.0:0"), 2, "--listen 0.0.0.0: without TLS everybody"),
        (
            ("--only", "http", "--listen", "lab:80"),
            2,
            "--listen 'lab:80': allowed: an IP address or localhost",
        ),
        (("--only", "http", "--host", "a b"), 2, "--host 'a b': allowed: a host's name"),
        (("--only", "http", "--tls-cert", "x.pem"), 2, "one goes with the other; give both"),
        (("--only", "projector", "--listen", "127.0.0.1:0"), 2, "are for HTTP; add --only http"),
        (("--insecure",), 2, "are for HTTP; add --only http, or --listen HOST:PORT"),
        (("--only", "https"), 2, "--only https: there are orchestrator, projector, webhooks, operator, http"),
    ],
)
def test_where_it_cannot_listen_is_said(
    owner: Cli, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = owner("server", "start", *arguments)
    assert (done.code, done.out) == (code, "")
    assert words in done.err


def test_a_credential_of_another_role_serves_nothing(cli: Cli) -> None:
    done = cli("server", "start", "--only", "http", "--listen", "127.0.0.1:0")
    assert done.code == 2
    assert "the credential of ann (user) cannot run http" in done.err


def test_dev_takes_the_port_that_it_is_told_or_says_who_has_it(alone: Cli) -> None:
    with open_door(Listen(port=0)) as door:
        done = alone("dev", "--port", "0", "--ephemeral", "--http-port", str(door.port))
    assert done.code == 6
    assert f"port {door.port} of 127.0.0.1 is taken by " in done.err
    assert "--http-port 0 takes any free port" in done.err


def test_it_runs_beside_the_others_and_alone_by_an_observers_credential(
    owner: Cli, cli: Cli, tmp_path: Path
) -> None:
    url = cli.ok("context", "get", "-o", "json").one["url"]
    creds = tmp_path / "web.creds"
    owner.ok("member", "add", "web", "--role", "observer", "--out", str(creds))
    every, alone = "orchestrator,projector,webhooks,operator,http", ("--url", url, "--creds", str(creds))
    for options, services in ((("--views", str(tmp_path / "views")), every), (alone, "http")):
        running = owner.start(
            "server", "start", "--listen", "127.0.0.1:0", *options, stderr=subprocess.DEVNULL
        )
        assert running.stdout is not None
        try:
            found = re.search(rf" services={services} http=(\S+)$", running.stdout.readline().strip())
            assert found is not None
            assert get(f"{found[1]}/health")[1]["status"] == "ready"
        finally:
            running.terminate()
            running.communicate(timeout=60)
        assert running.returncode == 0
