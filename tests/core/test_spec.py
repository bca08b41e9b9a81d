"""What a spec may say, how a wrong one is refused, and what tells queues apart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonies.core import names, units
from colonies.core.spec import (
    ALIASES,
    MAX_DEPTH_LEVELS,
    MAX_PROBLEMS,
    MAX_SPEC_BYTES,
    Conditions,
    Spec,
    queue_of,
)
from colonies.errors import Invalid
from colonies.files import read_spec

CLI: dict[str, Any] = {"runtimetype": "cli"}


def spec(**fields: Any) -> Spec:
    return Spec.parse({"func": "resize", "conditions": CLI, **fields})


def conditions(**fields: Any) -> Conditions:
    return spec(conditions={**CLI, **fields}).conditions


def refusal(data: object, **options: Any) -> str:
    with pytest.raises(Invalid) as caught:
        Spec.parse(data, **options)
    return str(caught.value)


def refusal_of(**fields: Any) -> str:
    return refusal({"func": "resize", "conditions": CLI, **fields})


def refusal_of_text(text: str | bytes) -> str:
    with pytest.raises(Invalid) as caught:
        Spec.parse_text(text)
    return str(caught.value)


# --- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", ["w1", "0", "gpu_box-2", "a" * 32])
def test_a_members_name_is_lower_case_and_short(good: str) -> None:
    assert names.member_name(good, "member") == good


@pytest.mark.parametrize(
    "bad", ["", "W1", "-a", "a.b", "*", ">", "a b", "w1\n", "a" * 33, "é", "\uff11", None, 3]
)
def test_a_members_name_that_could_break_a_subject_is_refused(bad: object) -> None:
    with pytest.raises(Invalid, match=r"^member: .*allowed: 1 to 32 of a-z"):
        names.member_name(bad, "member")
    assert not (isinstance(bad, str) and names.MEMBER.match(bad))


@pytest.mark.parametrize("bad", ["", "a.b", "cli\n", "a" * 65, True])
def test_a_name_with_a_trailing_newline_or_a_dot_is_refused_naming_the_field(bad: object) -> None:
    with pytest.raises(Invalid, match=r"^spec\.name: .*allowed: 1 to 64 of A-Z"):
        names.name(bad, "spec.name")
    assert names.name("Run_2-b", "spec.name") == "Run_2-b"


def test_a_refused_value_is_shown_short_and_on_one_line() -> None:
    loop: list[object] = []
    loop.append(loop)
    for value in ("x" * 10**6, 10**10_000, loop, {"a\nb": "\ud800"}, object(), float("nan")):
        text = names.shown(value)
        assert len(text) < 130
        assert "\n" not in text
        text.encode()


# --- sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("10GB", 10**10),
        ("10G", 10**10),
        ("10Gi", 10 * 2**30),
        ("10GiB", 10 * 2**30),
        ("10 GiB", 10 * 2**30),
        ("512M", 512 * 10**6),
        ("512MB", 512 * 10**6),
        ("1KB", 1_000),
        ("1kB", 1_000),
        ("1k", 1_000),
        ("1K", 1_000),
        ("1Ki", 1_024),
        ("2T", 2 * 10**12),
        ("1PB", 10**15),
        ("1PiB", 2**50),
        ("1.5Gi", 3 * 2**29),
        ("0.1GB", 10**8),
        ("1.0001Ki", 1_025),
        ("4321", 4_321),
        ("7B", 7),
        (1234, 1_234),
        (0, 0),
        ("1024Pi", 2**60),
    ],
)
def test_a_size_is_read_exactly(text: object, size_bytes: int) -> None:
    assert units.size(text) == size_bytes


@pytest.mark.parametrize("bad", ["10XB", "10Gb", "512m", "10gb", "1e3", "10kiB", "5bit"])
def test_a_size_with_an_unknown_unit_is_refused_naming_the_units(bad: str) -> None:
    with pytest.raises(
        Invalid, match=r"^size: .*(unknown unit|not a size).*; allowed: .*K, KB, Ki, KiB.*10GB"
    ):
        units.size(bad)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (-1, "is negative"),
        ("-5GB", "is negative"),
        (True, "is a boolean"),
        (1.5, "is a number"),
        (float("inf"), "is a number"),
        (None, "is null"),
        ("inf", "not a size"),
        ("", "not a size"),
        ("1.5", "fraction without a unit"),
        ("10GB\n", "not a size"),
        ("\uff11\uff10", "not a size"),
        ("9" * 5_000, "not a size"),
        (10**5_000, "is too large"),
        ("1025Pi", "is too large"),
    ],
    ids=names.shown,
)
def test_what_is_no_size_is_refused_with_the_reason(bad: object, why: str) -> None:
    with pytest.raises(Invalid, match=rf"^conditions\.mem: .*{why}.*; allowed: "):
        units.size(bad, "conditions.mem")


@given(st.integers(1, units.MAX_SIZE_BYTES), st.integers(1, units.MAX_SIZE_BYTES))
def test_the_ladder_rounds_up_by_at_most_an_eighth_and_keeps_order(small: int, large: int) -> None:
    small, large = sorted((small, large))
    rung = units.rung(small)
    assert small <= rung <= small * 9 / 8 + 1
    assert units.rung(rung) == rung
    assert rung <= units.rung(large)


# --- what a spec says -------------------------------------------------------------------------------


def test_the_smallest_spec_has_the_documented_defaults() -> None:
    smallest = spec()
    assert (smallest.args, smallest.kwargs, smallest.env) == ([], {}, {})
    assert (smallest.priority, smallest.maxretries) == (0, 0)
    assert (smallest.maxwaittime, smallest.maxexectime, smallest.conditions.walltime) == (None, None, None)
    assert smallest.wire() == {"func": "resize", "conditions": {"runtimetype": "cli"}}


@pytest.mark.parametrize("none", [0, -1, 0.0, -1.0, None])
def test_no_time_limit_is_said_by_absent_0_or_minus_1(none: object) -> None:
    assert spec(maxwaittime=none, maxexectime=none, conditions={**CLI, "walltime": none}) == spec()


@pytest.mark.parametrize(
    "bad", [-2, -0.5, "3", True, False, float("nan"), float("inf"), 10**400], ids=names.shown
)
def test_other_times_are_refused(bad: object) -> None:
    assert re.match(r"spec: maxexectime: .*allowed: seconds", refusal_of(maxexectime=bad))


def test_retries_without_limit_are_minus_1_and_less_is_refused() -> None:
    assert spec(maxretries=-1).maxretries == -1
    assert refusal_of(maxretries=-2).startswith("spec: maxretries: -2 is not allowed; allowed: ")


@pytest.mark.parametrize("bad", ["3", True, 3.0, 10, -10, None.__class__])
def test_a_priority_that_is_not_a_whole_number_from_minus_9_to_9_is_refused(bad: object) -> None:
    assert "spec: priority: " in refusal_of(priority=bad)


def test_cores_are_a_number_or_millicores() -> None:
    assert conditions(cpu="500m") == conditions(cpu=0.5)
    assert conditions(cpu=2).cpu == 2.0
    for bad in (0, -1, "2", "0m", "m", "5 m", True, float("nan")):
        assert "spec: conditions.cpu: " in refusal_of(conditions={**CLI, "cpu": bad})


def test_a_size_of_0_is_no_condition() -> None:
    assert conditions(mem="0Gi", storage=0) == conditions()


@pytest.mark.parametrize(
    "func", ["", " ", "\t\n", "a\0b", 3, ["resize"], "x" * 65_537, "é" * 32_769, "\ud800"], ids=names.shown
)
def test_a_function_that_is_empty_or_that_no_program_could_be_given_is_refused(func: object) -> None:
    wrong = r"(.* is not allowed|6553[78] bytes); allowed: text of at most 65536"
    assert re.match(rf"spec: func: {wrong}", refusal_of(func=func))


@pytest.mark.parametrize("func", ["cat <<'END' | sort\n\tb\n  a\nEND\n", " echo \x1b[1mhi", "x" * 65_536])
def test_a_function_may_be_a_whole_script_and_stays_as_it_was_written(func: str) -> None:
    assert spec(func=func).func == func
    assert Spec.parse(spec(func=func).wire()).func == func


@pytest.mark.parametrize(
    "env", [{"1A": "x"}, {"A-B": "x"}, {"": "x"}, {"A\n": "x"}, {"A": 1}, {"A": "\0"}, {"É": ""}]
)
def test_an_environment_that_posix_could_not_hold_is_refused(env: object) -> None:
    assert refusal_of(env=env).startswith("spec: env")
    assert spec(env={"_PATH1": ""}).env == {"_PATH1": ""}


@pytest.mark.parametrize(
    "env",
    [
        {"TOKEN": "hunter2\0"},
        {"TOKEN": ["hunter2"]},
        {"TOKEN": {"hunter2": "hunter2"}},
        {"TOKEN=hunter2": "hunter2"},
        {"a b": "hunter2"},
        "TOKEN=hunter2",
        ["TOKEN=hunter2"],
    ],
    ids=str,
)
def test_a_refusal_never_shows_a_value_of_the_environment(env: object) -> None:
    text = refusal_of(env=env)
    assert "hunter2" not in text
    assert re.match(r"spec: env\b.*: not allowed; allowed: an object of at most 1000 variables", text)


def test_a_spec_does_not_change_when_its_input_does() -> None:
    args: list[Any] = [[1]]
    parsed = spec(args=args)
    args[0].append(2)
    assert parsed.args == [[1]]
    with pytest.raises(ValueError, match="frozen"):
        parsed.func = "other"


# --- aliases ----------------------------------------------------------------------------------------


def test_the_successors_words_mean_ours() -> None:
    theirs = {
        "funcname": "resize",
        "nodename": "first",
        "conditions": {
            "executortype": "cli",
            "executornames": ["w1"],
            "locationname": "attic",
            "colonyname": "lab",
        },
    }
    where = {"workernames": ["w1"], "location": "attic"}
    assert Spec.parse(theirs) == spec(name="first", colony="lab", conditions={**CLI, **where})
    assert conditions(runtimeids=["w1"]) == conditions(workernames=["w1"])
    assert spec(colonyid="lab") == spec(colony="lab")


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_an_alias_beside_its_word_is_refused_naming_both(alias: str) -> None:
    word = ALIASES[alias]
    if word in Spec.model_fields:
        text = refusal({"func": "f", "conditions": CLI, word: "x", alias: "x"})
        assert text.startswith(f"spec: {word} and {alias} say the same thing")
    else:
        text = refusal_of(conditions={"runtimetype": "cli", word: "x", alias: "x"})
        assert f"spec: conditions.{word} and conditions.{alias} say the same thing" in text


def test_two_words_for_the_colony_at_two_places_are_refused_naming_both() -> None:
    text = refusal_of(colony="lab", conditions={**CLI, "colonyname": "lab"})
    assert text.startswith("spec: colony and conditions.colonyname say the same thing")


def test_a_problem_is_told_by_the_word_that_was_given() -> None:
    text = refusal({"funcname": " ", "conditions": {"executortype": "a b", "colonyid": "a b"}})
    paths = {line.split(": ")[1] for line in text.splitlines()}
    assert paths == {"funcname", "conditions.executortype", "conditions.colonyid"}


# --- refusals ---------------------------------------------------------------------------------------


def test_what_is_missing_is_said_with_an_example() -> None:
    assert refusal({}).splitlines() == [
        'spec: func: missing; it names the function to run, such as "func": "resize"',
        "spec: conditions: missing; it says which workers may run it, such as "
        '"conditions": {"runtimetype": "cli"}',
    ]
    assert "conditions.runtimetype: missing; it says which kind" in refusal_of(conditions={})
    assert refusal_of(conditions=None).startswith("spec: conditions: missing")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "[] is a list; one object is wanted here"),
        (None, "null is null; an object is wanted"),
        ("{}", "'{}' is a string; an object is wanted"),
        (True, "true is a boolean; an object is wanted"),
    ],
)
def test_what_is_not_an_object_is_told_what_it_is(data: object, said: str) -> None:
    assert refusal(data, where="job.json").startswith(f"job.json: {said}")


def test_an_unknown_field_is_refused_with_the_nearest_and_all_allowed() -> None:
    text = refusal_of(maxretry=3)
    assert text.startswith("spec: maxretry: unknown field; did you mean maxretries? allowed: args, at, ")
    assert "did you mean mem?" in refusal_of(conditions={**CLI, "memory": "1GB"})
    assert "conditions.gpu.nmae: unknown field; did you mean name? allowed: count, mem, name" in refusal_of(
        conditions={**CLI, "gpu": {"count": 1, "nmae": "A100"}}
    )


def test_a_field_at_the_wrong_place_is_told_its_place() -> None:
    assert "as conditions.runtimetype; allowed" in refusal_of(executortype="cli")
    assert "it belongs outside conditions, as func; " in refusal_of(conditions={**CLI, "funcname": "f"})


def test_problems_are_all_listed_by_path() -> None:
    text = refusal(
        {
            "func": "f",
            "args": [1, 2, 2**63, {"a": [float("nan")]}],
            "kwargs": {"k": (1, 2)},
            "conditions": {
                "runtimetype": "a.b",
                "mem": "10XB",
                "workernames": ["w1", 3],
                "gpu": {"count": 0},
            },
        }
    )
    assert [line.split(": ")[1] for line in text.splitlines()] == [
        "conditions.runtimetype",
        "conditions.workernames[1]",
        "conditions.mem",
        "conditions.gpu.count",
        "args[2]",
        "args[3].a[0]",
        "kwargs.k",
    ]
    assert "spec: conditions.mem: '10XB' has the unknown unit 'XB'; allowed: " in text


def test_more_than_10_problems_are_counted() -> None:
    lines = refusal_of(**{f"x{n}": n for n in range(25)}).splitlines()
    assert len(lines) == MAX_PROBLEMS
    assert lines[-1] == "spec: and 16 more problems"
    assert len(refusal_of(**{f"x{n}": n for n in range(10)}).splitlines()) == MAX_PROBLEMS


@pytest.mark.parametrize(
    "value",
    [2**63, -(2**63) - 1, 10**5_000, float("inf"), "\ud800", (1,), {1}, b"x", object],
    ids=names.shown,
)
def test_a_value_that_the_wire_cannot_hold_is_refused_by_path(value: object) -> None:
    assert refusal_of(args=[0, [value]]).startswith("spec: args[1][0]: ")
    assert refusal_of(kwargs={"a b": value}).startswith("spec: kwargs['a b']: ")


def test_whole_numbers_of_64_bits_are_kept() -> None:
    edge = [2**63 - 1, -(2**63)]
    assert spec(args=edge).args == edge


def test_a_key_that_is_no_text_is_refused() -> None:
    assert "kwargs: the key 1 is a whole number" in refusal_of(kwargs={1: 2})
    assert refusal({"func": "f", "conditions": CLI, 1: 2}).startswith("spec: 1")


def nested(levels: int) -> list[Any]:
    return [nested(levels - 1)] if levels > 1 else []


def test_values_nested_deeper_than_64_levels_are_refused() -> None:
    deepest = nested(MAX_DEPTH_LEVELS)
    assert spec(args=deepest).args == deepest
    assert Spec.parse(spec(args=deepest).wire()).args == deepest
    assert "nested too deeply; allowed: at most 64 levels" in refusal_of(args=[deepest])


def test_a_list_that_holds_itself_or_explodes_is_refused_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("colonies.core.plain.MAX_VALUES", 10_000)
    loop: list[Any] = []
    loop.append(loop)
    assert "nested too deeply" in refusal_of(args=loop)
    wide: list[Any] = [1]
    for _ in range(50):
        wide = [wide, wide]
    assert "too many values" in refusal_of(args=wide)


# --- text and files ---------------------------------------------------------------------------------


def test_a_spec_is_read_from_text_and_from_bytes_with_or_without_a_mark() -> None:
    text = json.dumps({"func": "größe", "conditions": CLI}, ensure_ascii=False)
    for given_text in (text, "\ufeff" + text, text.encode(), text.encode("utf-8-sig")):
        assert Spec.parse_text(given_text).func == "größe"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"func": "f",\n  oops}', "spec: not JSON: line 2, column 3: "),
        ("", "spec: empty; allowed: one object"),
        (b"\xef\xbb\xbf \n", "spec: empty; allowed: one object"),
        ('{"func": "f", "func": "g"}', "spec: the key 'func' is given twice in one object"),
        (b'{"func": "\xff"}', "spec: not UTF-8: byte 10 is 0xff"),
        ("[" * 100_000, "spec: nested too deeply; allowed: at most 64 levels"),
        ("[{}]", "spec: [{}] is a list; one object is wanted here"),
    ],
)
def test_text_that_is_no_spec_is_refused_saying_where(text: str | bytes, said: str) -> None:
    assert refusal_of_text(text).startswith(said)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5_000])
def test_numbers_that_json_or_the_wire_does_not_have_are_refused_by_path(number: str) -> None:
    text = f'{{"func": "f", "conditions": {{"runtimetype": "cli"}}, "args": [[{number}]]}}'
    assert refusal_of_text(text).startswith("spec: args[0][0]: ")


def test_a_file_that_cannot_be_read_is_refused_naming_its_path(tmp_path: Path) -> None:
    def said(path: Path | str) -> str:
        with pytest.raises(Invalid) as caught:
            read_spec(path)
        return str(caught.value)

    assert said(tmp_path / "none.json").startswith(f"{tmp_path}/none.json: there is no such file")
    assert said(tmp_path).startswith(f"{tmp_path}: this is a directory")
    assert "cannot be a path" in said("a\0b")
    file = tmp_path / "spec.json"
    file.write_bytes(b"x" * (MAX_SPEC_BYTES + 7))
    assert said(file).startswith(
        f"{file}: the file has {MAX_SPEC_BYTES + 7} bytes; allowed: at most {MAX_SPEC_BYTES}"
    )
    assert f"more than {MAX_SPEC_BYTES} bytes" in said("/dev/zero")
    assert "the file cannot be read: Not a directory" in said(file / "inside")
    file.write_text('{"func": " "}')
    assert said(file).startswith(f"{file}: func: ")
    file.write_text(json.dumps({"func": "f", "conditions": CLI}).ljust(MAX_SPEC_BYTES))
    assert read_spec(file).func == "f"


# --- queues -----------------------------------------------------------------------------------------


def test_a_queues_name_is_fixed_for_ever() -> None:
    """Names of queues are in every ledger: a change of these lines orphans what waits there."""
    assert queue_of(conditions(), 0) == "vpl7kf54gwurl2c7mf2hocx4dy"
    asked = conditions(
        workernames=["b", "a"], mem="10GB", cpu="500m", gpu={"count": 2, "mem": "40Gi"}, walltime=60
    )
    assert queue_of(asked, -3) == "ogc7grx7h6jhzj74o2j6zb4yei"
    assert asked.canonical() == {
        "cpu": 0.5,
        "gpu": {"count": 2, "mem": 40 * 2**30},
        "mem": 10 * 10**9,
        "runtimetype": "cli",
        "walltime": 60,
        "workernames": ["a", "b"],
    }


def test_a_queue_is_told_apart_by_conditions_and_priority_and_not_by_dependencies() -> None:
    plain = queue_of(conditions(), 0)
    assert re.fullmatch("[a-z2-7]{26}", plain)
    assert queue_of(conditions(dependencies=["first"], nodes=1, processes=1, mem=0), 0) == plain
    others: list[dict[str, Any]] = [
        {"workernames": ["a"]},
        {"location": "attic"},
        {"labels": {"a": "b"}},
        {"cpu": 1},
        {"mem": 1},
        {"storage": 1},
        {"gpu": {"count": 1}},
        {"gpu": {"count": 1, "name": "A100"}},
        {"nodes": 2},
        {"processes": 2},
        {"walltime": 1},
    ]
    found = {queue_of(conditions(**other), 0) for other in others} | {queue_of(conditions(), 1), plain}
    assert len(found) == len(others) + 2


def test_sizes_of_one_rung_wait_in_one_queue_but_stay_exact_in_the_spec() -> None:
    assert queue_of(conditions(mem="10.1GB"), 0) == queue_of(conditions(mem="10.5GB"), 0)
    assert conditions(mem="10.1GB").wire()["mem"] == 10_100_000_000


# --- properties -------------------------------------------------------------------------------------

text_of_any_kind = st.text(max_size=8) | st.text(st.characters(categories=["Cs", "Cc", "Lu"]), max_size=3)
finite_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
any_leaf = (
    finite_leaves
    | text_of_any_kind
    | st.integers()
    | st.floats()
    | st.sampled_from([10**400, -1, 0, "1.5Gi"])
)
words = st.sampled_from(
    sorted({*Spec.model_fields, *Conditions.model_fields, *ALIASES, "gpu", "count", "zzz"})
)
any_key = words | text_of_any_kind | st.integers()
any_json = st.recursive(
    any_leaf,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_key, inner, max_size=5),
    max_leaves=20,
)

name = st.text("abcXYZ019_-", min_size=1, max_size=6)
text = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=8)
wire_json = st.recursive(
    finite_leaves | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)
seconds = st.sampled_from([None, 0, -1, 1, 60.0]) | st.floats(0.001, 1e9)
size = st.integers(0, 2**60) | st.builds(
    "{}{}".format, st.integers(0, 999), st.sampled_from(sorted(units.UNITS))
)
count = st.integers(1, 10**6)
some_conditions = st.fixed_dictionaries(
    {"runtimetype": name},
    optional={
        "workernames": st.lists(name, max_size=4),
        "location": text,
        "labels": st.dictionaries(text, text, max_size=3),
        "cpu": st.floats(0.001, 1e6) | st.integers(1, 10**6) | st.builds("{}m".format, st.integers(1, 10**6)),
        "mem": size,
        "storage": size,
        "gpu": st.fixed_dictionaries({"count": count}, optional={"name": text, "mem": size}),
        "nodes": count,
        "processes": count,
        "walltime": seconds,
        "dependencies": st.lists(name, max_size=3),
    },
)
some_spec = st.fixed_dictionaries(
    {"func": text, "conditions": some_conditions},
    optional={
        "args": st.lists(wire_json, max_size=3),
        "kwargs": st.dictionaries(st.text(max_size=4), wire_json, max_size=3),
        "name": name,
        "label": text,
        "priority": st.integers(-9, 9),
        "maxwaittime": seconds,
        "maxexectime": seconds,
        "maxretries": st.integers(-1, 10**6),
        "env": st.dictionaries(st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,5}\Z"), text, max_size=3),
        "colony": name,
    },
)


def only_invalid(data: object) -> None:
    try:
        Spec.parse(data)
    except Invalid as refused:
        lines = str(refused).splitlines()
        assert 1 <= len(lines) <= MAX_PROBLEMS
        assert all(line.startswith("spec: ") for line in lines)
        str(refused).encode()


@given(any_json)
def test_nothing_but_invalid_comes_out_of_any_value(data: object) -> None:
    only_invalid(data)


@given(st.dictionaries(any_key, any_json, max_size=6), st.dictionaries(any_key, any_json, max_size=6))
def test_nothing_but_invalid_comes_out_of_an_almost_right_spec(
    data: dict[Any, Any], asked: dict[Any, Any]
) -> None:
    only_invalid({"func": "f", "conditions": {**CLI, **asked}, **data})


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_nothing_but_invalid_comes_out_of_any_text(data: str | bytes) -> None:
    with pytest.raises(Invalid):
        Spec.parse_text(data)


@given(some_spec)
def test_what_the_ledger_holds_means_the_same_spec(data: dict[str, Any]) -> None:
    parsed = Spec.parse(data)
    wire = parsed.wire()
    assert Spec.parse(wire) == parsed
    assert Spec.parse(wire).wire() == wire
    assert Spec.parse(msgpack.unpackb(msgpack.packb(wire))) == parsed
    assert Spec.parse_text(json.dumps(wire)) == parsed
    assert Spec.model_validate(parsed.model_dump()) == parsed


@given(some_conditions, st.integers(-9, 9), st.randoms())
def test_a_queues_name_does_not_depend_on_order_or_repetition(
    data: dict[str, Any], priority: int, dice: Any
) -> None:
    again = dict(dice.sample(list(data.items()), len(data)))
    for field in ("labels", "gpu"):
        if field in data:
            again[field] = dict(dice.sample(list(data[field].items()), len(data[field])))
    if workers := data.get("workernames"):
        again["workernames"] = dice.sample(workers + workers, 2 * len(workers))
    first, second = Conditions.parse(data), Conditions.parse(again)
    assert queue_of(first, priority) == queue_of(second, priority)
    assert list(first.canonical()) == sorted(first.canonical())


@given(some_conditions, st.integers(-9, 9))
def test_the_declared_conditions_of_a_queue_lead_to_the_same_queue(
    data: dict[str, Any], priority: int
) -> None:
    asked = Conditions.parse(data)
    assert queue_of(Conditions.parse(asked.canonical()), priority) == queue_of(asked, priority)


@pytest.mark.parametrize(
    "text",
    ["a\nb", "a\tb", "\x7f", "a\x9fb", "a\u2028b", "a\u202eb", "a\u2066b", " a", "a ", "\u00a0a", "a\u3000"],
)
def test_text_is_one_line_without_tricks_and_without_spaces_at_its_ends(text: str) -> None:
    with pytest.raises(Invalid, match="label"):
        spec(label=text)


@pytest.mark.parametrize(
    "text", ["a b", "a\u00a0b", "\u00e9t\u00e9", "\U0001f680", "\u0378", "\U0003fffd", "\ue000"]
)
def test_what_text_may_hold_does_not_depend_on_the_version_of_unicode(text: str) -> None:
    assert spec(label=text).label == text
