"""Requests and approvals as files: what is not one is refused, and none can be changed unnoticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonies.creds import Credential
from colonies.errors import Invalid, NotFound
from colonies.joining import (
    Approval,
    ChangeRequest,
    JoinRequest,
    Pending,
    parse_approval,
    parse_request,
    read_request,
)
from colonies.nkeys import KeyPair
from colonies.operator import OwnerKeys

ACCOUNT, KEY, FORMER = KeyPair.new("account"), KeyPair.new("user"), KeyPair.new("user")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> OwnerKeys:
    return OwnerKeys.create(tmp_path_factory.mktemp("owner") / "keys")


def a_credential(keys: OwnerKeys, key: KeyPair = FORMER) -> Credential:
    return Credential.of(keys.mint("w1", "worker", key.public), key)


def requests(keys: OwnerKeys) -> list[JoinRequest | ChangeRequest]:
    return [
        JoinRequest.of("w1", "worker", KEY, None),
        JoinRequest.of("w1", "worker", KEY, ACCOUNT.public),
        ChangeRequest.of(a_credential(keys), KEY),
    ]


def test_a_request_comes_out_as_it_went_in_and_holds_no_seed(keys: OwnerKeys) -> None:
    for request in requests(keys):
        assert parse_request(request.text()) == request
        assert KEY.seed not in request.text()
        assert FORMER.seed not in request.text()


def test_no_field_of_a_request_can_be_changed(keys: OwnerKeys) -> None:
    other = {
        "colonies": "request",
        "name": "w2",
        "role": "owner",
        "key": FORMER.public,
        "former": KEY.public,
        "colony": KeyPair.new("account").public,
        "signature": "A" * 86 + "==",
        "former_signature": "A" * 86 + "==",
    }
    for request in requests(keys):
        fields = json.loads(request.text())
        for field in fields:
            with pytest.raises(Invalid):
                parse_request(json.dumps({**fields, field: other[field]}))
            with pytest.raises(Invalid):
                parse_request(json.dumps({name: fields[name] for name in fields if name != field}))
            twice = f'{request.text().rstrip()[:-1]}, "{field}": {json.dumps(fields[field])}}}'
            with pytest.raises(Invalid):
                parse_request(twice)
        with pytest.raises(Invalid, match="unknown field"):
            parse_request(json.dumps({**fields, "more": "x"}))


def test_one_kind_of_request_is_no_other(keys: OwnerKeys) -> None:
    """A signature for one purpose must not do for another."""
    change = ChangeRequest.of(a_credential(keys), KEY)
    join = JoinRequest(change.name, "worker", KEY.public, change.colony, change.consent)
    assert not join.genuine
    assert JoinRequest.of("w1", "worker", KEY, None).genuine


texts = st.text(max_size=60)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["name", "role", "key", "former", "colony", "signature", "former_signature", "url", "token"]
GOOD = st.sampled_from(["w1", "worker", KEY.public, ACCOUNT.public, "A" * 86 + "==", "nats://h", "x.y.z"])
KINDS = st.sampled_from(["request to join", "request to change a key", "approval"])


@given(
    texts
    | st.builds(
        lambda kind, fields: json.dumps({"colonies": kind, **fields}),
        KINDS,
        st.dictionaries(st.sampled_from([*FIELDS, "colony_name"]), GOOD | values, max_size=8),
    )
)
def test_whatever_the_text_it_is_invalid_and_nothing_else(text: str) -> None:
    for parse in (parse_request, parse_approval):
        with pytest.raises(Invalid):
            parse(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5_000, '{"colonies":' * 5_000, "\ud800", '"\\ud800"'])
def test_hostile_json_is_invalid(text: str) -> None:
    for parse in (parse_request, parse_approval):
        with pytest.raises(Invalid):
            parse(text)


def test_a_file_that_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no request at .*none\.request"):
        read_request(tmp_path / "none.request")
    (tmp_path / "big.request").write_text(" " * 100_000)
    with pytest.raises(Invalid, match=r"big\.request holds no request: the file has 100000 bytes"):
        read_request(tmp_path / "big.request")
    (tmp_path / "bad.request").write_text("{}")
    with pytest.raises(Invalid, match=r"bad\.request: it is no request"):
        read_request(tmp_path / "bad.request")


def test_an_approval_comes_out_as_it_went_in_and_fits_one_key_only(keys: OwnerKeys) -> None:
    approval = Approval(keys.mint("w1", "worker", KEY.public, 2_000_000_000), "nats://lab:4222", "lab")
    assert parse_approval(approval.text()) == approval
    assert approval.key == KEY.public
    credential = approval.credential(KEY)
    assert (credential.name, credential.role, credential.expires) == ("w1", "worker", 2_000_000_000)
    with pytest.raises(Invalid, match="but the seed is that of"):
        approval.credential(FORMER)


def test_a_key_waits_in_a_private_file_until_it_is_done_with(
    keys: OwnerKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLONIES_DATA_DIR", str(tmp_path / "data"))
    for request in requests(keys):
        pending = Pending(request, KEY, tmp_path / "w1.creds")
        path = pending.keep()
        assert path.stat().st_mode & 0o777 == 0o600
        found = Pending.find(KEY.public)
        assert found == pending
        assert found.key.seed == KEY.seed
    path.write_text("{}")
    with pytest.raises(Invalid, match="is damaged; ask again"):
        Pending.find(KEY.public)
    pending.forget()
    pending.forget()
    with pytest.raises(NotFound, match="no key waits"):
        Pending.find(KEY.public)
