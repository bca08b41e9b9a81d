"""The life of a webhook on the ledger, and what it hears."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest
from pydantic import TypeAdapter, ValidationError

from colonies.core import colony as colonies_
from colonies.core.colony import Colony
from colonies.core.events import EVENT, Record, WebhookAdded, WebhookChanged, WebhookEvent, WebhookRemoved
from tests.core.telling import Telling, key, record_of

HOOK = "https://example.com/hook"
SEALED = bytes(80)
ADDED = WebhookAdded(HOOK, ["process.*"], "eye", key(5), SEALED)
CHANGED = WebhookChanged("https://example.org/", ["*"], "eye", key(5), SEALED, func="train")


def said(colony: Colony, event: WebhookEvent, sequence: int, author: str = "olga") -> Record:
    prev = colonies_.head(colony, "webhook", "ops")
    role = "owner" if author == "olga" else "user"
    record = record_of(
        event, author, role=role, kind="webhook", entity="ops", sequence=sequence, prev=prev, queue=None
    )
    return replace(record, digest=sequence.to_bytes(32, "big"))


def tell(colony: Colony, *events: WebhookEvent, first: int = 100) -> list[str]:
    """The rules by which these, said one after the other, are not valid; "" for those that are."""
    rules = []
    for sequence, event in enumerate(events, first):
        record = said(colony, event, sequence)
        verdict = colonies_.judge(colony, record)
        rules.append(verdict.rule)
        if verdict.valid:
            colonies_.evolve(colony, record)
    return rules


def test_a_webhook_is_added_changed_removed_and_added_again() -> None:
    colony = Telling().colony
    assert tell(colony, ADDED, CHANGED) == ["", ""]
    now = colony.webhooks["ops"]
    assert (now.added, now.since, now.url, now.func) == (100, 101, "https://example.org/", "train")
    assert tell(colony, WebhookRemoved("moved"), ADDED, first=102) == ["", ""]
    assert (colony.webhooks["ops"].added, colony.webhooks["ops"].func) == (103, None)


def test_there_is_one_webhook_of_a_name_at_a_time() -> None:
    colony = Telling().colony
    none = "there is no webhook of this name"
    assert tell(colony, CHANGED, WebhookRemoved()) == [none, none]
    assert tell(colony, ADDED, ADDED) == ["", "there is a webhook of this name"]
    assert tell(colony, WebhookRemoved(), WebhookRemoved(), first=110) == ["", none]


@pytest.mark.parametrize("event", [ADDED, CHANGED, WebhookRemoved()], ids=lambda event: event.type)
def test_who_is_no_owner_says_nothing_of_webhooks(event: WebhookEvent) -> None:
    colony = Telling().colony
    verdict = colonies_.judge(colony, said(colony, event, 100, "ann"))
    assert verdict.denied
    assert verdict.rule == "only an owner says where events are sent, and ann is a user"


@pytest.mark.parametrize(
    ("filters", "type", "hears"),
    [
        (["*"], "process.failed", True),
        (["process.*"], "process.failed", True),
        (["process.failed"], "process.failed", True),
        (["process.failed"], "process.completed", False),
        (["workflow.*"], "process.failed", False),
        (["workflow.*", "process.failed"], "process.failed", True),
        (["process.fail"], "process.failed", False),
    ],
)
def test_a_filter_names_one_type_or_all_of_a_kind_or_all(filters: list[str], type: str, hears: bool) -> None:
    colony = Telling().colony
    tell(colony, replace(ADDED, events=filters))
    assert colony.webhooks["ops"].hears(type) is hears


def test_who_asks_for_a_function_hears_of_processes_only() -> None:
    colony = Telling().colony
    tell(colony, ADDED, CHANGED)
    assert colony.webhooks["ops"].hears("process.failed")
    assert not colony.webhooks["ops"].hears("workflow.submitted")


def test_a_colony_with_webhooks_comes_out_of_a_projectors_file_as_it_went_in() -> None:
    colony = Telling().colony
    tell(colony, ADDED, CHANGED)
    adapter = TypeAdapter(Colony)
    kept = msgpack.unpackb(msgpack.packb(adapter.dump_python(colony)))
    assert adapter.validate_python(kept).webhooks == colony.webhooks


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "example.com",
            "ftp://example.com/",
            "https://",
            "HTTPS://example.com/",
            "https://Example.com/",
        ),
        *("https://user@example.com/", "https://u:p@example.com/", "https://example.com/#x"),
        *(
            "https://example.com/ ",
            "https://example.com/\n",
            "https://exämple.com/",
            "https://x/" + "y" * 2_040,
        ),
    ],
)
def test_an_event_with_what_is_no_address_is_none(url: str) -> None:
    whole = {"type": "webhook.added", "url": HOOK, "events": ["*"], "service": "eye", "key": key(5)}
    EVENT.validate_python({**whole, "secret": SEALED})
    with pytest.raises(ValidationError):
        EVENT.validate_python({**whole, "secret": SEALED, "url": url})


@pytest.mark.parametrize(
    "more",
    [
        *({"events": given} for given in ([], ["*"] * 65, ["process"], "*")),
        *({"secret": given} for given in (bytes(71), bytes(113), "x" * 80)),
        *({"service": "Eye"}, {"func": ""}, {"more": 1}),
    ],
)
def test_an_event_with_what_is_no_webhook_is_none(more: dict[str, object]) -> None:
    whole = {"type": "webhook.added", "url": HOOK, "events": ["*"], "service": "eye", "key": key(5)}
    with pytest.raises(ValidationError):
        EVENT.validate_python({**whole, "secret": SEALED, **more})
