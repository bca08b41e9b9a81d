"""Unix commands, with a real shell, real processes and real deaths."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from colonies_workers import child as children
from colonies_workers.command import CommandFailed, run_command, run_unix
from colonies_workers.folder import ProcessFolder, prune
from colonies_workers.shell import shell_words

from colonies.errors import Invalid, Unavailable
from colonies.reaper import Reaper

AWKWARD = [
    "",
    " ",
    "two words",
    "it's",
    'say "hi"',
    "$(rm x)",
    "`rm x`",
    "; rm x",
    "&& rm x | cat > y",
    "line\nbreak",
    "trailing\n",
    "*",
    "~",
    "$HOME ${PATH}",
    "\\",
    "-n",
    "--",
    "#",
    "!",
    "æøå 日本 🐝",
    "\x01\x7f",
]
SHOW = f"{sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))'"


@pytest.fixture
def run(tmp_path, reaper):
    """Run a command in tmp_path; what it wrote is collected in `run.heard`."""

    async def run(command, *args, env=None, **options):
        def hear(stream, text):
            run.heard.append((stream, text))

        return await run_command(
            command,
            args,
            env=env or {},
            folder=tmp_path,
            reaper=options.pop("reaper", reaper),
            on_output=options.pop("on_output", hear),
            **options,
        )

    run.heard = []
    return run


@pytest.fixture
def unix(tmp_path, reaper):
    """Run a process's attempt with its folders under tmp_path/work."""

    async def unix(func, *args, kwargs=None, env=None, **options):
        return await run_unix(
            func,
            args,
            kwargs or {},
            env or {},
            process=options.pop("process", "p1"),
            attempt=options.pop("attempt", 1),
            inputs=options.pop("inputs", None),
            base=tmp_path / "work",
            reaper=reaper,
            on_output=lambda stream, text: None,
            **options,
        )

    return unix


# Arguments


async def test_every_argument_arrives_as_it_was_given(run):
    completed = await run(SHOW, *AWKWARD)
    assert json.loads(completed.stdout) == AWKWARD


async def test_an_argument_that_is_not_a_string_arrives_as_json(run):
    completed = await run(SHOW, 1, 2.5, True, None, {"a": ["b c", 'd"']}, [])
    assert json.loads(completed.stdout) == ["1", "2.5", "true", "null", '{"a":["b c","d\\""]}', "[]"]


@pytest.mark.parametrize(
    ("func", "args", "printed"),
    [
        ("echo a; echo b", ["c"], "a\nb c\n"),
        ("echo a | cat - ", ["/dev/null"], "a\n"),
        ("echo a\n", ["b"], "a b\n"),
        ("\n  echo a\necho b  \n\n", ["c"], "a\nb c\n"),
        ("cd / # go\necho a # b\necho c", ["d"], "a\nc d\n"),
        ("echo '# not' \"a # comment\" a#b \\#", ["c"], "# not a # comment a#b # c\n"),
        ("echo a\\", [], "a\\\n"),
        ("echo a # comment", [], "a\n"),
        ("cat <<END\nhello $((1 + 1))\nEND\n", [], "hello 2\n"),
        ('sh -c \'echo "$2" "$1" # swapped\' sh', ["a", "b"], "b a\n"),
        ("sh -c 'cat <<END\n$1\nEND' sh", ["$(rm x)"], "$(rm x)\n"),
        ("echo ${HOME#/}x'", [], None),
        ("X=1 echo \\;", [";", "&"], "; ; &\n"),
        ("echo \"it's\" 'a\"b'", ["c"], "it's a\"b c\n"),
    ],
)
async def test_arguments_are_appended_to_the_command(run, func, args, printed):
    completed = await run(func, *args)
    assert completed.stdout == (printed or "")
    assert (completed.exit_code == 0) == (printed is not None)


@pytest.mark.parametrize(
    ("func", "reason"),
    [
        ("echo a # comment", "ends in a comment"),
        ("# comment\n", "ends in a comment"),
        ("echo a;#c", "ends in a comment"),
        ("cat <<END\nhello\nEND\n", "here-document"),
        ("echo a;", "ends in ;"),
        ("echo a &\n", "ends in &"),
        ("echo a &&", "ends in &"),
        ("echo a |", "ends in |"),
        ("echo 'a", "ends within '"),
        ('echo "a', 'ends within "'),
        ("echo a \\\n", "backslash"),
    ],
)
async def test_a_command_that_would_lose_its_arguments_or_run_them_is_refused(run, func, reason):
    with pytest.raises(Invalid, match=re.escape(reason)):
        await run(func, "touch", "ran")


def test_no_byte_of_an_argument_is_shell_text():
    for func in ("echo", 'echo "a"', "a | b", "$(c)", "`d`"):
        text = shell_words(func, AWKWARD)[2]
        assert text == f'{func} "$@"'.encode()


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["a", "b\0c"], r"args\[1\]"),
        ([b"bytes"], r"args\[0\]"),
        ([float("nan")], r"args\[0\]"),
        (["\ud800"], r"args\[0\]"),
        (["x" * 3_000_000], "too long"),
    ],
)
async def test_an_argument_that_no_command_can_be_given_is_refused_by_name(run, args, named):
    with pytest.raises(Invalid, match=named):
        await run("echo", *args)


async def test_an_empty_command_is_refused(run):
    with pytest.raises(Invalid, match="func is empty"):
        await run(" \n")


async def test_kwargs_are_refused_by_name(unix):
    with pytest.raises(Invalid, match="'size'"):
        await unix("echo", kwargs={"size": 1})


# What the command finds around it


async def test_the_command_has_its_env_and_neither_the_workers_secrets_nor_its_place_in_a_trace(
    run, monkeypatch
):
    monkeypatch.setenv("COLONIES_CREDS", "/secret.creds")
    monkeypatch.setenv("COLONIES_ANYTHING", "secret")
    monkeypatch.setenv("TRACEPARENT", "where the worker stands")
    monkeypatch.setenv("TRACESTATE", "where the worker stands")
    monkeypatch.setenv("INHERITED", "yes")
    monkeypatch.setenv("CHANGED", "no")
    completed = await run("env", env={"CHANGED": "line 1\nline 2 $x", "OWN": "æ"})
    lines = completed.stdout.splitlines()
    assert {"INHERITED=yes", "CHANGED=line 1", "line 2 $x", "OWN=æ"} <= set(lines)
    assert not [line for line in lines if line.startswith(("COLONIES_", "TRACE"))]


@pytest.mark.parametrize("env", [{"": "x"}, {"a-b": "x"}, {"A=B": "x"}, {"A": "\0"}, {"1A": ""}])
async def test_an_env_that_no_command_can_be_given_is_refused(run, env):
    with pytest.raises(Invalid, match="env"):
        await run("true", env=env)


async def test_env_may_not_take_the_names_that_the_worker_sets(unix):
    with pytest.raises(Invalid, match="COLONIES_PROCESS"):
        await unix("true", env={"COLONIES_PROCESS": "another"})


async def test_stdin_is_empty_and_no_other_file_is_open(run):
    completed = await run("cat; ls /dev/fd/ | head -n 4 | tr '\\n' ' '")
    assert completed.stdout.split()[:3] == ["0", "1", "2"]
    assert len(completed.stdout.split()) <= 4, "the fourth is what ls itself opened"


async def test_the_command_runs_in_its_folder_with_its_inputs(unix):
    func = 'echo "$COLONIES_PROCESS $COLONIES_ATTEMPT $(cat "$COLONIES_INPUTS") $(pwd -P)"; ls'
    output = await unix(func, process="p7", attempt=3, inputs={"a": ["æ", 1]})
    first, *files = output.splitlines()
    assert first.startswith('p7 3 {"a": ["æ", 1]} /')
    assert first.endswith("/work/p7-3")
    assert files == ["inputs.json"]


# Output


async def test_the_output_is_stdout_without_its_last_newline(unix):
    assert await unix("printf 'a\\nb\\n\\n'") == "a\nb\n"
    assert await unix("printf a") == "a"
    assert await unix("true") == ""


async def test_json_in_the_output_file_is_the_output(unix):
    written = {"a": [1, None, "æ"]}
    func = 'echo log; sh -c \'printf "%s" "$1" > "$COLONIES_OUTPUT"\' sh'
    assert await unix(func, written) == written
    assert await unix(func, "null") is None


@pytest.mark.parametrize(
    ("writes", "message"),
    [
        ("printf '{\"a\": 1,\\n  b}' > $COLONIES_OUTPUT", "line 2 column 3"),
        ("printf '{}\\n\\377' > $COLONIES_OUTPUT", "line 2 column 1"),
        (": > $COLONIES_OUTPUT", "line 1 column 1"),
        ("echo NaN > $COLONIES_OUTPUT", "NaN"),
        ("mkdir $COLONIES_OUTPUT", "not a regular file"),
        ("mkfifo $COLONIES_OUTPUT", "not a regular file"),
        ("ln -s /dev/zero $COLONIES_OUTPUT", "not a regular file"),
        (f"{sys.executable} -c 'print(\"[\" * 200000)' > $COLONIES_OUTPUT", "output.json"),
    ],
)
async def test_a_broken_output_file_fails_the_process_and_says_where(unix, writes, message):
    with pytest.raises(CommandFailed, match=message) as failure:
        await unix(writes)
    assert "p1-1/output.json" in str(failure.value)
    assert failure.value.exit_code == 0


def test_an_output_file_has_a_limit(tmp_path):
    folder = ProcessFolder(tmp_path, "p1", 1)
    folder.make(None)
    folder.output.write_text('"12345678"')
    assert folder.read_output(10) == ("12345678",)
    with pytest.raises(Invalid, match="limit of 9 bytes"):
        folder.read_output(9)
    folder.remove()


async def test_too_much_output_is_cut_with_a_note_but_all_of_it_is_heard(run):
    completed = await run("head -c 3000000 /dev/zero | tr '\\0' x", max_output_bytes=1000)
    assert completed.truncated
    assert completed.stdout == "x" * 1000 + "\n[output cut at 1000 bytes; 2999000 bytes left out]"
    assert sum(len(text) for _, text in run.heard) == 3_000_000


async def test_output_of_exactly_the_limit_is_not_cut_and_no_character_is_split(run):
    completed = await run("printf ææ", max_output_bytes=4)
    assert (completed.stdout, completed.truncated) == ("ææ", False)
    completed = await run("printf æææ", max_output_bytes=5)
    assert completed.stdout == "ææ\n[output cut at 5 bytes; 1 bytes left out]"


async def test_binary_output_is_text_with_replacement_characters(run):
    completed = await run("printf 'a\\377\\000b\\303'")
    assert completed.stdout == "a\ufffd\0b\ufffd"
    assert "".join(text for _, text in run.heard) == completed.stdout


async def test_the_tail_of_stderr_is_kept(run):
    completed = await run(f'{sys.executable} -c \'print("é" * 50000 + "end")\' >&2')
    assert completed.stderr_tail == "é" * 2046 + "end\n", "4096 bytes but for half a character"
    assert completed.stdout == ""


async def test_output_is_heard_as_it_comes_in_whole_lines(run, tmp_path):
    """The command goes on only when its first line was heard, so nothing was held back."""

    def hear(stream, text):
        run.heard.append((stream, text))
        (tmp_path / f"heard{len(run.heard)}").touch()

    def wait(number):
        return f"until [ -e heard{number} ]; do sleep 0.01; done"

    command = f"printf o; printf 'ne\\n'; {wait(1)}; printf 'no newline'; {wait(2)}; echo err >&2"
    await run(command, on_output=hear)
    assert "".join(text for stream, text in run.heard if stream == "stdout") == "one\nno newline"
    assert ("stderr", "err\n") in run.heard


async def test_an_asynchronous_listener_is_waited_for(run):
    heard = []

    async def hear(stream, text):
        await asyncio.sleep(0)
        heard.append(text)

    await run("seq 100000", on_output=hear)
    assert "".join(heard).split() == [str(number) for number in range(1, 100001)]


async def test_a_listener_that_raises_ends_the_command(run, tmp_path, facts):
    def hear(stream, text):
        raise ValueError("full")

    with pytest.raises(ValueError, match="full"):
        await run("echo $$ > pid; echo a; exec sleep 1000", on_output=hear)
    assert not facts.is_alive(*facts.read_pids(tmp_path, "pid"))


# Ends


async def test_a_command_that_fails_says_its_exit_code_and_the_end_of_stderr(unix):
    with pytest.raises(CommandFailed, match=r"exit code 3; [^$]*stderr:\nwhy") as failure:
        await unix("echo out; echo why >&2; exit 3")
    error = failure.value
    assert (error.exit_code, error.signal, error.stderr_tail) == (3, None, "why\n")
    with pytest.raises(CommandFailed, match="exit code 1 and wrote nothing to stderr"):
        await unix("false")
    with pytest.raises(CommandFailed, match=r"exit code 127[^$]*not found"):
        await unix("no-such-program")


async def test_a_death_by_signal_is_reported_by_name(unix):
    with pytest.raises(CommandFailed, match="was killed by SIGSEGV") as failure:
        await unix("kill -SEGV $$")
    assert (failure.value.exit_code, failure.value.signal) == (None, signal.SIGSEGV)
    with pytest.raises(CommandFailed, match=r"exit code 137 .*SIGKILL"):
        await unix("sh -c 'kill -KILL $$'; exit $?")


async def test_a_background_child_that_holds_the_output_open_does_not_hold_up_the_end(run, tmp_path, facts):
    completed = await run("sleep 1000 & echo $! > child; echo done")
    assert completed.exit_code == 0
    assert completed.stdout == "done\n"
    (child,) = facts.read_pids(tmp_path, "child")
    await facts.until(lambda: not facts.is_alive(child), "the child is dead")


async def test_a_background_child_may_finish_its_output_shortly_after(run):
    completed = await run("(sleep 0.1; echo late) & echo early", linger_s=30.0)
    assert completed.stdout == "early\nlate\n"


async def test_a_background_child_that_let_go_of_the_output_does_not_live_on(run, tmp_path, facts):
    await run("sleep 1000 > /dev/null 2>&1 & echo $! > child")
    (child,) = facts.read_pids(tmp_path, "child")
    await facts.until(lambda: not facts.is_alive(child), "the child is dead")


async def test_a_daemon_outside_the_session_does_not_hold_up_the_end(run, tmp_path, facts):
    """It writes without an end, too."""
    daemon = (
        "import os\nos.setsid()\nopen('pid', 'w').write(f'{os.getpid()}\\n')\nwhile True: print('x' * 999)"
    )
    (tmp_path / "daemon.py").write_text(daemon)
    completed = await run(f"{sys.executable} daemon.py 2>&1 & until [ -s pid ]; do sleep 0.01; done")
    assert completed.exit_code == 0
    (pid,) = facts.read_pids(tmp_path, "pid")
    await facts.until(lambda: not facts.is_alive(pid), "its output ended, so it dies of SIGPIPE")


FAMILY = "sleep 1000 & echo $! > child; (sleep 1001 & echo $! > grandchild; wait); wait"


async def test_cancelling_kills_the_whole_family(run, tmp_path, facts):
    command = asyncio.ensure_future(run("echo $$ > shell; " + FAMILY))
    names = ("shell", "child", "grandchild")
    await facts.until(lambda: facts.read_pids(tmp_path, *names), "the family is complete")
    family = facts.read_pids(tmp_path, *names)
    assert all(map(facts.is_alive, family))
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command
    assert not any(map(facts.is_alive, family))
    with pytest.raises(ProcessLookupError):
        os.kill(family[0], 0)  # not even a zombie


async def test_cancelling_kills_what_took_a_group_of_its_own(run, tmp_path, facts):
    own = "import os, time; os.setpgid(0, 0); open('own', 'w').write(f'{os.getpid()}\\n'); time.sleep(1000)"
    (tmp_path / "own.py").write_text(own)
    command = asyncio.ensure_future(run(f"{sys.executable} own.py; true"))
    await facts.until(lambda: facts.read_pids(tmp_path, "own"), "it has a group of its own")
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command
    assert not facts.is_alive(*facts.read_pids(tmp_path, "own"))


async def test_a_cancelled_command_may_say_and_save_what_it_has(run, tmp_path, facts):
    """Its shell does not wait for it, its output is redirected: it still gets its grace."""
    saving = (
        "trap 'echo saved > saved; echo last words; exit' TERM; echo $$ > ready; while :; do sleep 0.05; done"
    )
    (tmp_path / "saving.sh").write_text(saving)
    command = asyncio.ensure_future(run("sh saving.sh 2>/dev/null; true", term_grace_s=30.0))
    await facts.until(lambda: facts.read_pids(tmp_path, "ready"), "the trap is set")
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command
    assert (tmp_path / "saved").read_text() == "saved\n"
    assert ("stdout", "last words\n") in run.heard


async def test_cancelling_again_does_not_leave_the_family_behind(run, tmp_path, facts):
    stubborn = "trap 'echo $$ > asked' TERM; echo $$ > ready; while :; do sleep 0.05; done"
    command = asyncio.ensure_future(run(stubborn, term_grace_s=0.5))
    await facts.until(lambda: facts.read_pids(tmp_path, "ready"), "the trap is set")
    command.cancel()
    await facts.until(lambda: facts.read_pids(tmp_path, "asked"), "it got SIGTERM")
    for _ in range(5):
        command.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await command
    assert not facts.is_alive(*facts.read_pids(tmp_path, "ready"))


async def test_a_stopped_command_can_be_cancelled(run, tmp_path, facts):
    command = asyncio.ensure_future(run("echo $$ > pid; kill -STOP $$; true"))
    await facts.until(lambda: facts.read_pids(tmp_path, "pid"), "it runs")
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command
    assert not facts.is_alive(*facts.read_pids(tmp_path, "pid"))


async def test_a_time_out_is_a_cancellation(run):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await run("sleep 1000")


async def test_a_command_never_begins_when_nobody_would_watch_it(run, tmp_path):
    reaper = Reaper()
    with pytest.raises(Unavailable):
        await run("touch began", reaper=reaper)
    assert not (tmp_path / "began").exists()


async def test_a_command_is_released_while_its_number_is_still_its_own(run):
    released = []

    class Watching(Reaper):
        def release(self, pgid):
            os.kill(pgid, 0)  # raises if the leader is reaped already
            released.append(pgid)
            super().release(pgid)

    async with Watching() as reaper:
        await run("true", reaper=reaper)
    assert len(released) == 1


async def test_the_exit_is_known_where_the_system_has_no_waitid(run, monkeypatch):
    monkeypatch.delattr(children.os, "waitid")
    assert (await run("exit 3")).exit_code == 3
    assert (await run("kill -TERM $$")).signal == signal.SIGTERM


async def test_many_commands_at_once_each_get_their_own(run):
    ended = await asyncio.gather(*(run("echo out; exit", number) for number in range(50)))
    assert [completed.exit_code for completed in ended] == list(range(50))


async def test_nothing_stays_open_after_a_command(run):
    await run("true")
    before = sorted(os.listdir("/dev/fd"))
    for _ in range(5):
        await run("echo a; echo b >&2; sleep 1000 &", linger_s=0.01)
    assert sorted(os.listdir("/dev/fd")) == before


WORKER = """
import asyncio, sys
from pathlib import Path
from colonies.reaper import Reaper
from colonies_workers.command import run_command

async def main():
    async with Reaper() as reaper:
        await run_command({command!r}, [], env={{}}, folder=Path({folder!r}), reaper=reaper,
                          on_output=lambda stream, text: None)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_a_killed_worker_leaves_nothing(tmp_path, python, facts, number):
    text = WORKER.format(command="echo $$ > shell; " + FAMILY, folder=str(tmp_path))
    worker = python(text, start_new_session=True, stderr=-3)
    names = ("shell", "child", "grandchild")
    await facts.until(lambda: facts.read_pids(tmp_path, *names), "the family is complete")
    family = facts.read_pids(tmp_path, *names)
    os.killpg(worker.pid, number)
    await facts.until(lambda: not any(map(facts.is_alive, family)), "the family is dead")


# Folders


async def test_the_folder_goes_after_success_and_stays_after_failure(unix, tmp_path):
    work = tmp_path / "work"
    await unix("mkdir -p a/b; chmod 0500 a/b a; touch c", process="good")
    assert list(work.iterdir()) == []
    with pytest.raises(CommandFailed):
        await unix("echo why > note; exit 1", process="bad")
    assert (work / "bad-1" / "note").read_text() == "why\n"


async def test_only_the_newest_folders_of_ended_attempts_are_kept(unix, tmp_path):
    running = ProcessFolder(tmp_path / "work", "running", 1)
    running.make(None)
    os.utime(tmp_path / "work" / "running-1.lock", (0, 0))
    for number in range(22):
        with pytest.raises(CommandFailed):
            await unix("exit 1", process=f"p{number}")
        os.utime(tmp_path / "work" / f"p{number}-1.lock", (number, number))
    prune(tmp_path / "work", keep=3)
    kept = {path.name for path in (tmp_path / "work").iterdir() if path.is_dir()}
    assert kept == {"p19-1", "p20-1", "p21-1", "running-1"}, "what runs is not touched, however old"
    running.remove()
    assert len(list((tmp_path / "work").iterdir())) == 6


def test_an_attempt_has_one_worker(tmp_path):
    first = ProcessFolder(tmp_path, "p1", 1)
    first.make(None)
    with pytest.raises(Unavailable, match="in use"):
        ProcessFolder(tmp_path, "p1", 1).make(None)
    (first.path / "old").touch()
    first.keep()
    second = ProcessFolder(tmp_path, "p1", 1)
    second.make(None)
    assert not (second.path / "old").exists()
    second.remove()


@pytest.mark.parametrize("process", ["", "..", "a/b", "-x", "a" * 200])
def test_a_process_cannot_choose_a_folder_outside(tmp_path, process):
    with pytest.raises(Invalid, match="process id"):
        ProcessFolder(tmp_path, process, 1)


async def test_inputs_that_are_not_json_are_refused(unix, tmp_path: Path):
    with pytest.raises(Invalid, match="inputs"):
        await unix("true", inputs=b"bytes")
    assert not (tmp_path / "work").exists()
