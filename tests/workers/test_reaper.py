"""The reaper, with real processes that are really killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from colonies import reaping
from colonies.errors import Invalid, Unavailable
from colonies.reaper import Reaper, gated

PARENT = """
import asyncio, os, subprocess, sys
from colonies.reaper import Reaper

async def main():
    async with Reaper() as reaper:
        child = subprocess.Popen(["/bin/sh", "-c", {command!r}], cwd={folder!r}, start_new_session=True)
        reaper.watch(child.pid, grace_s={grace_s})
        {more}
        print(reaper.pid, child.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def parent(folder: Path, command: str, *, grace_s: float = 0.0, more: str = "pass") -> str:
    return PARENT.format(command=command, folder=str(folder), grace_s=grace_s, more=more)


def sleeper(**options) -> subprocess.Popen:
    return subprocess.Popen(["sleep", "1000"], start_new_session=True, **options)


FAMILY = "sleep 1000 & echo $! > child; (sleep 1001 & echo $! > grandchild); wait"


async def test_a_killed_parent_leaves_no_process_of_a_watched_group(tmp_path, python, facts):
    program = python(parent(tmp_path, FAMILY))
    helper, leader = map(int, program.stdout.readline().split())
    await facts.until(lambda: facts.read_pids(tmp_path, "child", "grandchild"), "the family is complete")
    family = [leader, *facts.read_pids(tmp_path, "child", "grandchild")]
    assert all(map(facts.is_alive, family))
    program.kill()
    await facts.until(lambda: not any(map(facts.is_alive, family)), "the family is dead")
    await facts.until(lambda: not facts.is_alive(helper), "the helper is gone")


async def test_a_child_that_took_a_group_of_its_own_dies_too(tmp_path, python, facts):
    own_group = "import os, time; os.setpgid(0, 0); print(os.getpid(), flush=True); time.sleep(1000)"
    (tmp_path / "own.py").write_text(own_group)
    command = f"'{sys.executable}' own.py > child; echo never reached"
    program = python(parent(tmp_path, command))
    leader = int(program.stdout.readline().split()[1])
    await facts.until(lambda: facts.read_pids(tmp_path, "child"), "the child has its own group")
    (child,) = facts.read_pids(tmp_path, "child")
    assert os.getpgid(child) != leader
    program.kill()
    await facts.until(lambda: not facts.is_alive(child), "the child is dead")


async def test_a_group_with_a_grace_is_asked_first(tmp_path, python, facts):
    command = "trap 'echo asked > asked; exit' TERM; echo $$ > ready; while :; do sleep 0.05; done"
    program = python(parent(tmp_path, command, grace_s=20.0))
    helper, leader = map(int, program.stdout.readline().split())
    await facts.until(lambda: facts.read_pids(tmp_path, "ready"), "the trap is set")
    program.kill()
    await facts.until(lambda: not facts.is_alive(leader), "the leader is dead")
    assert (tmp_path / "asked").exists()
    await facts.until(
        lambda: not facts.is_alive(helper), "the helper does not wait for the rest of the grace"
    )


async def test_a_group_that_ignores_the_question_is_killed_after_its_grace(tmp_path, python, facts):
    command = "trap '' TERM; echo $$ > ready; while :; do sleep 0.05; done"
    program = python(parent(tmp_path, command, grace_s=0.3))
    leader = int(program.stdout.readline().split()[1])
    await facts.until(lambda: facts.read_pids(tmp_path, "ready"), "the trap is set")
    program.kill()
    await facts.until(lambda: not facts.is_alive(leader), "the leader is dead")


async def test_a_released_group_lives_on(tmp_path, python, facts):
    more = "reaper.release(child.pid)"
    program = python(parent(tmp_path, "exec sleep 1000", more=more))
    helper, leader = map(int, program.stdout.readline().split())
    program.kill()
    await facts.until(lambda: not facts.is_alive(helper), "the helper is gone")
    assert facts.is_alive(leader)
    os.kill(leader, signal.SIGKILL)


async def test_a_forked_child_does_not_hide_the_death_of_its_parent(tmp_path, python, facts):
    more = """fork = os.fork()
        if fork == 0:
            import pathlib, time
            pathlib.Path({file!r}).write_text(str(os.getpid()) + "\\n")
            time.sleep(1000)""".format(file=str(tmp_path / "fork"))
    program = python(parent(tmp_path, "exec sleep 1000", more=more))
    leader = int(program.stdout.readline().split()[1])
    await facts.until(lambda: facts.read_pids(tmp_path, "fork"), "the fork runs")
    (fork,) = facts.read_pids(tmp_path, "fork")
    program.kill()
    await facts.until(lambda: not facts.is_alive(leader), "the watched group is dead")
    assert facts.is_alive(fork), "it was still there to hold what it inherited"
    os.kill(fork, signal.SIGKILL)


async def test_the_helper_does_not_hear_the_terminals_signals(tmp_path, python, facts):
    """As Ctrl-C does, SIGINT goes to all of the group; the parent dies of it, the helper does its work."""
    program = python(parent(tmp_path, "exec sleep 1000"), start_new_session=True)
    helper, leader = map(int, program.stdout.readline().split())
    assert os.getsid(helper) == helper
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(helper, number)
    assert facts.is_alive(helper)
    os.killpg(program.pid, signal.SIGINT)
    await facts.until(lambda: not facts.is_alive(leader), "the watched group is dead")


async def test_closing_kills_what_is_still_watched(facts):
    reaper = Reaper()
    await reaper.start()
    child = sleeper()
    reaper.watch(child.pid)
    await reaper.close()
    assert child.wait() == -signal.SIGKILL
    assert reaper.pid is None


async def test_a_dead_helper_is_replaced_and_told_everything_again(reaper, facts):
    first, second, third = sleeper(), sleeper(), sleeper()
    reaper.watch(first.pid)
    reaper.watch(second.pid)
    reaper.release(second.pid)
    dead = reaper.pid
    os.kill(dead, signal.SIGKILL)
    await facts.until(lambda: reaper.pid not in (dead, None), "there is a new helper")
    reaper.watch(third.pid)
    await reaper.close()
    assert first.wait() == third.wait() == -signal.SIGKILL
    assert second.poll() is None
    second.kill()
    second.wait()


async def test_watching_replaces_a_helper_whose_death_was_not_yet_heard(reaper, facts):
    dead = reaper.pid
    os.kill(dead, signal.SIGKILL)
    facts.wait_until(lambda: not facts.is_alive(dead), "the helper is dead")
    child = sleeper()
    reaper.watch(child.pid)
    assert reaper.pid != dead
    await reaper.close()
    assert child.wait() == -signal.SIGKILL


async def test_a_reaper_that_cannot_be_had_is_an_error_at_once(reaper, monkeypatch, facts):
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    with pytest.raises(Unavailable, match="/nonexistent/python"):
        await Reaper().start()
    os.kill(reaper.pid, signal.SIGKILL)
    facts.wait_until(lambda: not facts.is_alive(reaper.pid), "the helper is dead")
    child = sleeper()
    with pytest.raises(Unavailable, match="orphans"):
        reaper.watch(child.pid)
    child.kill()
    child.wait()


async def test_a_helper_that_always_dies_is_given_up(monkeypatch, tmp_path):
    (tmp_path / "broken.py").write_text("raise SystemExit(1)")
    monkeypatch.setattr(reaping, "__file__", str(tmp_path / "broken.py"))
    with pytest.raises(Unavailable, match="ended at once"):
        await Reaper().start()


@pytest.mark.parametrize("pgid", [-1, 0, 1, os.getpgrp()])
async def test_what_is_not_a_childs_group_is_never_watched(reaper, pgid):
    with pytest.raises(Invalid):
        reaper.watch(pgid)


@pytest.mark.parametrize("grace_s", [-1.0, 61.0, float("nan")])
async def test_a_grace_has_a_limit(reaper, grace_s):
    with pytest.raises(Invalid, match="grace"):
        reaper.watch(os.getpid() + 1, grace_s=grace_s)


def test_a_gated_program_that_is_never_let_go_ends_by_itself(tmp_path):
    child = subprocess.Popen(gated(["touch", str(tmp_path / "ran")]), stdin=subprocess.PIPE)
    child.stdin.close()
    assert child.wait() == 125
    assert not (tmp_path / "ran").exists()


def test_a_gated_program_gets_its_words_as_they_are_and_an_empty_stdin():
    program = ["/bin/sh", "-c", 'cat; env | grep -c COLONIES_GO; printf "%s|" "$@"', "sh", "a b", "", "$(c)"]
    child = subprocess.run(gated(program), input=b"go\nmore", stdout=subprocess.PIPE, check=True)
    assert child.stdout == b"0\na b||$(c)|"


def test_the_living_are_found_without_proc_as_well(monkeypatch):
    child = sleeper()
    monkeypatch.setattr(reaping.os.path, "exists", lambda path: False)
    try:
        assert child.pid in reaping._pids()
    finally:
        child.kill()
        child.wait()
