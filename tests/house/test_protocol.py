"""docs/protocol.md says what the code does: every event, field, limit, subject, header, setting and rule."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from colonies import heartbeats, logs, nkeys, queueing, streams, subjects
from colonies.core import capacity, events, flow, names, spec, units
from colonies.core import node as nodes_
from colonies.core.words import Words
from tests.sentences import MODULES, sentences

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
PACKAGES = ("colonies", "cli/colonies_cli", "projections/colonies_projections", "workers/colonies_workers")

# The aliases of `colonies.core.events`, and how the page calls them.
ALIASES = {
    "Id": "id",
    "Name": "name",
    "MemberName": "member",
    "Text": "short text",
    "Reason": "reason",
    "Digest": "digest",
    "WorkflowId": "workflow id",
    "Label": "label",
    "Key": "key",
    "Int": "count",
    "UnixSeconds": "unix seconds",
    "Signature": "signature",
    "Seconds": "seconds",
    "Lease": "lease",
    "Value": "value",
    "Schema": "schema",
    "TraceParent": "traceparent",
    "WebhookUrl": "url",
    "Filter": "filter",
    "SealedSecret": "sealed secret",
}
MODELS = {
    "spec": spec.Spec,
    "conditions": spec.Conditions,
    "gpu": spec.Gpu,
    "limit": spec.Limit,
    "capacity": capacity.Capacity,
    "device": capacity.Device,
    "node": nodes_.NodeRules,
    "workflow": flow._Rules,
}
PARTS = {
    "ref": events.Ref,
    "logs": events.LogDigest,
    "function": events.Function,
    "source": events.Source,
    "trace": events.Trace,
}
LISTS = {
    "Cites": f"list of count, at most {events.MAX_CITES:,}",
    "Parts": f"list of digest, at most {events.MAX_PARTS}",
    "Annotated[list[NodeField], at_most(MAX_ADDED_NODES)]": (
        f"list of [node](#node), at most {events.MAX_ADDED_NODES:,}"
    ),
    "Annotated[list[NodeField], at_most(MAX_PART_NODES)]": (
        f"list of [node](#node), at most {events.MAX_PART_NODES:,}"
    ),
    "Annotated[dict[Label, WorkflowId], at_most(MAX_REUSED)]": (
        f"map of label to workflow id, at most {events.MAX_REUSED:,}"
    ),
    "Annotated[dict[WorkflowId, Int], at_most(MAX_GRANTED)]": (
        f"map of workflow id to count, at most {events.MAX_GRANTED}"
    ),
    "Annotated[list[Value], at_most(MAX_PACKED)]": f"list of value, at most {events.MAX_PACKED:,}",
    "Filters": f"list of filter, 1 to {events.MAX_WEBHOOK_FILTERS}",
    "Annotated[list[Int], at_most(MAX_TRIGGER)]": f"list of count, at most {events.MAX_TRIGGER:,}",
}
FUNCTIONS = f"list of [function](#function), at most {events.MAX_FUNCTIONS:,}"
EVENTS = {kind.__dataclass_fields__["type"].default: kind for kind in get_args(events.Event)}


def section(title: str) -> str:
    """The text below a heading, up to the next one of any level."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/protocol.md has no heading {title}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The rows of all tables in a text, without their headings."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = {i - 1 for i, line in enumerate(lines) if re.fullmatch(r"[|-]+", line)}
    heads |= {i + 1 for i in heads}
    return [
        [cell.strip() for cell in line.strip("|").split(" |")]
        for i, line in enumerate(lines)
        if i not in heads
    ]


def plain(cell: str) -> str:
    """A cell without code marks, links and emphasis."""
    return cell.strip("`") if cell.startswith("`") else re.sub(r"\[(.+?)\]\(.+?\)", r"\1", cell).strip("*")


def unanchored(pattern: str) -> str:
    return pattern.removeprefix(r"\A").removesuffix(r"\z")


# --- events -----------------------------------------------------------------------------------------


def type_of(kind: type, field: dataclasses.Field[Any]) -> str:
    """What the page must say of a field's type."""
    source = str(field.type)
    optional = source.endswith(" | None") or source == "Value"
    base = source.removesuffix(" | None")
    names_ = {
        name.capitalize(): f"[{name}](#{name})" for name in ("ref", "conditions", "spec", "capacity", "trace")
    }
    known = {
        **ALIASES,
        **names_,
        **LISTS,
        "WorkflowSpecField": "[workflow](#workflow)",
        "Source": "[source](#source)",
        "Literal[True]": "`true`",
        "bool": "bool",
        "LogDigest": "[logs](#logs)",
        "Role": "role",
        "Annotated[dict[Role, Key], at_most(MAX_ROLES)]": f"map of role to key, at most {events.MAX_ROLES}",
        "Annotated[list[Function], at_most(MAX_FUNCTIONS)]": FUNCTIONS,
    }
    if base in known:
        said = known[base]
    elif base.startswith("Literal["):
        said = "one of " + ", ".join(f"`{word}`" for word in ast.literal_eval(base.removeprefix("Literal")))
    else:
        said = bounds(eval(base, vars(sys.modules[kind.__module__])))
    if field.default is dataclasses.MISSING:
        return said
    if optional:
        return f"{said}, optional"
    if isinstance(field.default, bool):
        return f"{said}, or left out: {str(field.default).lower()}"
    shown = f"`{field.default}`" if isinstance(field.default, str) else f"{field.default:g}"
    return f"{said}, or left out: {shown if field.default != '' else 'empty'}"


def bounds(annotated: Any) -> str:
    """A field with limits of its own, in the page's words."""
    base, *info = get_args(annotated)
    limits = {type(limit): limit for item in info if isinstance(item, FieldInfo) for limit in item.metadata}
    if base in (int, float):
        what = "whole number" if base is int else "number"
        return f"{what}, {limits[Ge].ge:,} to {limits[Le].le:,}"
    pattern = next((p for limit in limits.values() if (p := getattr(limit, "pattern", None))), None)
    if pattern is not None:
        return f"string `{unanchored(pattern)}`"
    if MinLen in limits:
        return f"string of {limits[MinLen].min_length} to {limits[MaxLen].max_length:,} characters"
    return f"string of at most {limits[MaxLen].max_length:,} characters"


@pytest.mark.parametrize(("title", "kind"), [*EVENTS.items(), *PARTS.items()])
def test_each_field_of_an_event_is_on_the_page_with_its_type(title: str, kind: type) -> None:
    heading = f"`{title}`" if "." in title else title
    said = {plain(row[0]): row[1] for row in rows(section(heading))}
    fields = {field.name: type_of(kind, field) for field in dataclasses.fields(kind) if field.name != "type"}
    assert said == fields


def test_no_event_is_on_the_page_that_the_code_has_not() -> None:
    assert set(re.findall(r"^### `([a-z.]+)`$", PAGE, re.MULTILINE)) == EVENTS.keys()
    kinds = {type_.partition(".")[0] for type_ in EVENTS} | {"log"}
    mentioned = set(re.findall(rf"`((?:{'|'.join(kinds)})\.[a-z]+)`", PAGE))
    assert mentioned == EVENTS.keys() | set(get_args(logs.Type))


@pytest.mark.parametrize(("alias", "word"), ALIASES.items())
def test_each_type_is_on_the_page_with_its_limits(alias: str, word: str) -> None:
    (said,) = [row[1] for row in rows(section("Types")) if row[0] == word]
    for item in get_args(getattr(events, alias, None) or getattr(nodes_, alias))[1:]:
        for limit in item.metadata if isinstance(item, FieldInfo) else ():
            number = next(
                (getattr(limit, a) for a in ("ge", "le", "min_length", "max_length") if hasattr(limit, a)),
                None,
            )
            if isinstance(limit, Ge | Le | MaxLen | MinLen):
                assert f"{number:,g}" in said or f"{number:,}" in said, f"{word}: {limit}"
            elif pattern := getattr(limit, "pattern", None):
                assert f"`{unanchored(pattern)}`" in said
    for name, constant in {"value": events.MAX_VALUE_LEVELS, "schema": events.MAX_SCHEMA_KEYS}.items():
        assert word != name or f"{constant:,}" in said


def test_every_type_on_the_page_is_one_of_the_code() -> None:
    said = {row[0] for row in rows(section("Types"))}
    assert said == set(ALIASES.values()) | {f"*{word}*" for word in words()}


# --- specs ------------------------------------------------------------------------------------------


def words() -> dict[str, str]:
    """The page's short words for what is allowed in specs, and what they stand for."""
    return {
        "name": names.NAME_ALLOWED,
        "text": spec._TEXT,
        "seconds or no limit": spec._SECONDS,
        "count from 1": spec.COUNT,
        "size": units.SIZES,
    }


def allowed(model: type[Words], name: str, info: FieldInfo) -> str:
    """What the page must say that a field allows."""
    described = info.description or ""
    inner = {"conditions": "conditions", "gpu": "gpu"}.get(name)
    if inner is not None:
        return f"[{inner}](#{inner})"
    if name == "gpus":
        return f"{described.partition(' devices')[0]} devices, [device](#device)"
    for short, text in {
        "name": names.NAME_ALLOWED,
        "text": "text, such as A100",
        "count from 1": "a whole number from 1",
        "seconds or no limit": "seconds; nothing: no limit",
    }.items():
        if described == text:
            return f"*{short}*"
    if described == "text, such as ice-lab":
        return "*text*"
    if described == "an object of names and values":
        return f"an object of at most {spec.MAX_ENTRIES} names and values"
    for short, text in words().items():
        described = described.replace(text, f"*{short}*")
    return described


@pytest.mark.parametrize(("title", "model"), MODELS.items())
def test_each_field_of_a_spec_is_on_the_page_with_what_it_allows(title: str, model: type[Words]) -> None:
    said = {plain(row[0]): (row[1], row[2]) for row in rows(section(title))}
    expected = {}
    for name, info in model.model_fields.items():
        default = info.get_default(call_default_factory=True, validated_data={})
        empty = {"None": "none", "[]": "empty", "{}": "empty", "False": "false"}
        shown = empty.get(str(default), str(default))
        name = "finally" if model is nodes_.NodeRules and name == "last" else name
        expected[name] = (allowed(model, name, info), "" if default is PydanticUndefined else shown)
    assert said == expected


def test_the_short_words_say_what_the_code_says() -> None:
    said = {row[0].strip("*"): row[1] for row in rows(section("Types")) if row[0].startswith("*")}
    assert said == words()


# --- subjects, headers, streams, consumers ------------------------------------------------------------


def test_each_subject_of_the_code_is_on_the_page_and_no_other() -> None:
    said = {plain(row[0]) for row in rows(section("Subjects"))}
    forms = {subjects.process_events("<process>"), subjects.ALL_PROCESS_EVENTS, subjects.ALL_CANCELS}
    forms.add(subjects.ALL_OFFERS)
    forms |= {subjects.heartbeat("<member>", "<instance>"), subjects.log("<process>", "<member>")}
    forms |= {subjects.logs_of("<process>"), subjects.timer("<process>"), subjects.timer_due("<process>")}
    forms |= {
        subjects.value_chunks("<name>"),
        subjects.value_meta("<encoded>"),
        subjects.offers_of("<queue>"),
    }
    forms |= {*subjects.TRUST, subjects.QUEUES}
    entity = {
        "colony": "",
        "process": "<process>",
        "queue": "<queue>",
        "member": "<member>",
        "worker": "<member>",
        **{kind: f"<{kind}>" for kind in ("workflow", "limit", "cron", "generator", "webhook")},
    }
    for type_ in EVENTS:
        kind, _, name = type_.partition(".")
        forms.add(subjects.guard_of(kind, entity[kind]))
        offer = "<queue>" if name in ("queued", "requeued", "released") else None
        shown = "queued" if offer else "<event>"
        forms.add(str(subjects.Subject(kind, entity[kind], shown, "<author>", offer)))
    assert said == forms


def test_each_function_that_makes_subjects_is_held_against_the_page() -> None:
    """One more of them wants a row, and a word in the test above."""
    made = {
        name
        for name, function in inspect.getmembers(subjects, callable)
        if function.__module__ == subjects.__name__ and inspect.signature(function).return_annotation == "str"
    }
    taken_apart = {"author_of", "event_of", "process_of", "process_of_feed"}
    taken_apart |= {"guard_of_subject", "feed_of", "subject_of"}
    forms = {"guard_of", "heartbeat", "log", "logs_of", "offers_of", "process_events", "timer", "timer_due"}
    assert made == taken_apart | forms | {"value_chunks", "value_meta", "webhooks_at"}
    assert f"`{subjects.webhooks_at('<service>')}`" in section("Webhooks")


def headers() -> Iterator[str]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and re.fullmatch(r"Nats-[A-Za-z-]+", str(node.value)):
                    yield node.value


def test_each_header_of_the_code_is_on_the_page_and_no_other() -> None:
    assert {plain(row[0]) for row in rows(section("Headers"))} == set(headers())
    assert set(re.findall(r"Nats-[A-Za-z-]*[a-zA-Z]", PAGE)) == {*headers(), "Nats-Msg-Id"}


def test_the_streams_are_those_that_are_made() -> None:
    said = [json.loads(line) for line in section("Streams").splitlines() if line.startswith("{")]
    made = [{name: v for name, v in c.items() if name != "num_replicas"} for c in streams.configs()]
    assert said == made


def test_the_consumers_are_those_that_are_made() -> None:
    text = section("Queues and their consumers")
    queue, timers = (json.loads(line) for line in text.splitlines() if line.startswith("{"))
    assert queue == queueing._settings("<queue>")
    source = inspect.getsource(queueing.JetStreamMachinery._make_timers)
    assert timers["name"] == queueing.JetStreamMachinery.TIMER_CONSUMER
    assert set(re.findall(r'^ +"([a-z_]+)": ', source, re.MULTILINE)) == timers.keys()
    for value in (timers["filter_subject"], timers["deliver_policy"], timers["ack_policy"]):
        assert f'"{value}"' in source
    assert timers["max_waiting"] == queueing.MAX_WAITING
    assert f'"ack_wait": int({timers["ack_wait"] // 10**9}e9)' in source


# --- rules and numbers --------------------------------------------------------------------------------


def test_each_rule_of_the_code_is_on_the_page_and_no_other() -> None:
    titles = (
        *("On every message", "Of the colony, members, queues, workers, webhooks"),
        *("Of a node", "Of a workflow", "Of a process", "Of a cron", "Of a generator"),
        *("Of a run of a cron", "Of a run of a generator"),
    )
    said = {row[-1] for title in titles for row in rows(section(title))}
    assert said == set(sentences(("quarantined", "denied", "Malformed"), (*MODULES, "codec")))


def test_each_rule_by_which_an_event_is_void_is_on_the_page_and_no_other() -> None:
    assert {row[-1] for row in rows(section("What is void"))} == set(sentences(("void",)))
    made = [
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"\bvoid\(", path.read_text(encoding="utf-8"))
    ]
    core = [f"colonies/core/{name}.py" for name in ("crons", "events", "generators", "nodes")]
    assert sorted(made) == [*core, "colonies/history.py"]


def test_each_number_on_the_page_is_that_of_the_code() -> None:
    found = rows(section("Numbers"))
    assert {row[0] for row in found} == set(re.findall(r"\b[A-Z]{3,}(?:_[A-Z]+)+\b", PAGE)) - {"_INBOX"}
    for name, number, unit, constant in found:
        module, _, last = plain(constant).rpartition(".")
        assert last == name
        value = getattr(importlib.import_module(module), name)
        assert Decimal(number.replace(",", "")) == Decimal(str(value)), name
        if suffix := {"BYTES": "bytes", "S": "seconds", "CHARS": "characters"}.get(name.rsplit("_", 1)[1]):
            assert unit == suffix


def test_the_weak_point_is_on_the_page() -> None:
    assert nkeys._Y_OF_ORDER_8.to_bytes(32, "little").hex() in section("Keys and logging in")


def test_notes_beside_the_ledger_are_on_the_page() -> None:
    said = {(plain(row[0]), plain(row[1])) for row in rows(section("Heartbeats and logs"))}
    assert {type_ for type_, _ in said} == {"heartbeat", *get_args(logs.Type)}
    beat = {field.name for field in dataclasses.fields(heartbeats.Heartbeat)} - {"worker", "time"}
    assert {field for type_, field in said if type_ == "heartbeat"} == beat
