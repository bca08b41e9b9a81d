"""Bearer tokens: good for one member of one colony for a while, and for nothing else; whoever makes them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonies import bearer, jwt
from colonies.bearer import Bearer, NotGood, admit, issue, read
from colonies.core.colony import Colony
from colonies.core.events import Role
from colonies.core.members import SECOND, Held, Member
from colonies.errors import Invalid, NotFound, Refused
from colonies.nkeys import KeyPair

NOW = 1_800_000_000 * SECOND
ACCOUNT = KeyPair.new("account").public
KEYS = {name: KeyPair.new("user") for name in ("owner", "ann", "bob", "stranger")}


def colony(**changed: Member) -> Colony:
    """A colony with an owner and two users, some of whom may be otherwise."""
    roles: dict[str, Role] = {"owner": "owner", "ann": "user", "bob": "user"}
    members = {
        name: Member(name, role, (Held(KEYS[name].public, 1, NOW - 100 * SECOND),))
        for name, role in roles.items()
    }
    made = Colony(ACCOUNT, "test")
    made.members = {**members, **changed}
    made.holders = {held.key: name for name, member in made.members.items() for held in member.keys}
    return made


def token(member: str = "ann", by: str | None = None, **options: Any) -> str:
    given = {"expires_s": 3_600, "now": NOW, **options}
    return issue(colony(), KEYS[by or member], member, **given)[0]


def forged(by: KeyPair, *, header: bytes = bearer._HEADER.encode(), **claims: Any) -> str:
    """A token of our making, well signed, that says what we like."""
    said = {
        "colony": ACCOUNT,
        "sub": "ann",
        "key": KEYS["ann"].public,
        "iss": by.public,
        "iat": NOW // SECOND,
        "exp": NOW // SECOND + 60,
        "jti": "x",
        "aud": "colonies-http",
        **claims,
    }
    parts = f"{bearer._segment(header)}.{bearer._segment(json.dumps(said).encode())}"
    return f"{parts}.{bearer._segment(by.sign(bearer._signed(ACCOUNT, parts)))}"


def test_a_member_is_whom_its_token_says_signed_by_itself_or_an_owner() -> None:
    for by in ("ann", "owner"):
        said = admit(token(by=by), colony(), NOW)
        assert (said.sub, said.member_of(colony(), NOW).role) == ("ann", "user")
    assert admit(forged(KEYS["ann"]), colony(), NOW).sub == "ann"


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"sub": "bob"}, "bob is no member with this key"),
        ({"sub": "bob", "key": KEYS["bob"].public}, "ann cannot make tokens for bob"),
        ({"sub": "owner", "key": KEYS["owner"].public}, "ann cannot make tokens for owner"),
        ({"sub": "nobody"}, "nobody is no member"),
        ({"sub": ""}, "is no member"),
        ({"colony": KeyPair.new("account").public}, "for another colony"),
        ({"aud": "nats"}, "for another colony, or for something else"),
        ({"exp": NOW // SECOND}, "expired"),
        ({"exp": -1}, "expired"),
        ({"exp": NOW // SECOND + bearer.MAX_TOKEN_S + 1}, "lasts too long"),
        ({"iat": NOW // SECOND + bearer.SKEW_S + 1, "exp": NOW // SECOND + 100}, "of the future"),
        ({"iss": KEYS["owner"].public}, "signature is not that of its issuer"),
        ({"iss": KEYS["bob"].public}, "bob cannot make tokens for ann"),
        ({"iss": KEYS["stranger"].public}, "who signed it is no member"),
        ({"iss": ACCOUNT}, "who signed it is no member"),
        ({"iss": "junk"}, "who signed it is no member"),
        ({"exp": "later"}, "of the wrong kind"),
        ({"exp": True}, "of the wrong kind"),
        ({"exp": 1.5e12}, "of the wrong kind"),
        ({"sub": ["ann"]}, "of the wrong kind"),
        ({"admin": True}, "not those of a token of ours"),
    ],
)
def test_a_token_that_says_more_than_its_signer_may_is_refused(claims: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why):
        admit(forged(KEYS["ann"], **claims), colony(), NOW)


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "EdDSA", "ed25519", ""])
def test_there_is_one_header(alg: str) -> None:
    for header in ({"typ": "colonies-bearer", "alg": alg}, {"typ": "JWT", "alg": "ed25519-nkey"}):
        said = json.dumps(header, separators=(",", ":")).encode()
        with pytest.raises(Refused, match="its header is not that"):
            admit(forged(KEYS["ann"], header=said), colony(), NOW)


def test_a_token_ends_with_its_time() -> None:
    made = token(expires_s=60)
    admit(made, colony(), NOW + 60 * SECOND - 1)
    with pytest.raises(Refused, match="expired"):
        admit(made, colony(), NOW + 60 * SECOND)


@pytest.mark.parametrize("who", ["ann", "owner"])
def test_a_token_ends_with_its_member_and_with_the_owner_who_made_it(who: str) -> None:
    made = token("ann", by="owner")
    member = colony().members[who]
    fresh = KeyPair.new("user").public
    ended = {
        "revoked": member.ended(50, NOW),
        "over": Member(who, member.role, (Held(member.key, 1, 0, expires=NOW),)),
        "with another key": member.rekeyed(fresh, 50, NOW, None),
    }
    told = {"revoked": bearer.REVOKED, "over": bearer.OVER, "with another key": bearer.REKEYED}
    for how, changed in ended.items():
        with pytest.raises(NotGood, match=f"{who} is no member with this key") as refused:
            admit(made, colony(**{who: changed}), NOW)
        assert refused.value.told == (told[how] if who == "ann" else bearer.UNMADE)


def test_what_became_of_a_member_is_told_only_to_who_has_a_token_that_its_key_signed() -> None:
    member = colony().members["bob"]
    ended = colony(bob=member.ended(50, NOW))
    bob = {"sub": "bob", "key": member.key}
    forgeries = [
        forged(KEYS["stranger"], **bob),
        forged(KEYS["stranger"], **bob, iss=member.key),
        forged(KEYS["stranger"], **bob, iss=KEYS["owner"].public),
        forged(KEYS["ann"], **bob),
        forged(KEYS["bob"], iss=member.key),  # for ann
        forged(KEYS["ann"], sub="nobody"),
    ]
    parts, _, signature = forged(KEYS["bob"], **bob).rpartition(".")
    for text in (*forgeries, f"{parts}.{signature[43:]}{signature[:43]}", f"{parts}.{signature[:-1]}"):
        with pytest.raises(NotGood) as refused:
            admit(text, ended, NOW)
        assert refused.value.told == bearer.UNSIGNED
    with pytest.raises(NotGood) as refused:
        admit(forged(KEYS["bob"], **bob), ended, NOW)
    assert refused.value.told == bearer.REVOKED


def test_a_former_key_makes_no_tokens() -> None:
    member = colony().members["ann"]
    fresh = KeyPair.new("user")
    after = colony(ann=member.rekeyed(fresh.public, 50, NOW, None))
    for key in (KEYS["ann"].public, fresh.public):
        with pytest.raises(Refused):
            admit(forged(KEYS["ann"], key=key), after, NOW)
    admit(forged(fresh, key=fresh.public), after, NOW)


def test_making_one_says_what_is_wrong() -> None:
    for expires_s in (0, -1, bearer.MAX_TOKEN_S + 1):
        with pytest.raises(Invalid, match="lasts 1 to 2592000 seconds"):
            token(expires_s=expires_s)
    with pytest.raises(NotFound, match="there is no member nobody"):
        issue(colony(), KEYS["owner"], "nobody", expires_s=1, now=NOW)
    with pytest.raises(Refused, match="bob cannot make tokens for ann"):
        token("ann", by="bob")
    with pytest.raises(Refused, match="who signed it is no member"):
        token("ann", by="stranger")


def test_no_token_of_nats_is_one_of_ours_and_none_of_ours_is_one_of_nats() -> None:
    made = token()
    with pytest.raises(Invalid, match="header of a NATS JWT"):
        jwt.decode(made, verify=False)
    account = KeyPair.new("account")
    claims = jwt.user_claims(subject=KEYS["ann"].public, name="ann", issuer_account=account.public)
    with pytest.raises(Refused):
        admit(jwt.encode(claims, account), colony(), NOW)


def test_what_is_signed_is_no_text_so_no_challenge_of_a_broker_can_be_it() -> None:
    said = bearer._signed(ACCOUNT, token().rpartition(".")[0])
    with pytest.raises(UnicodeDecodeError):
        said.decode()
    # As somebody would have it who took the signed parts for all that is signed.
    parts = token().rpartition(".")[0]
    naked = f"{parts}.{bearer._segment(KEYS['ann'].sign(parts.encode()))}"
    with pytest.raises(Refused, match="signature"):
        admit(naked, colony(), NOW)


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_no_changed_bit_is_overlooked(place: int, bit: int) -> None:
    made = token()
    raw = bytearray(made.encode())
    raw[place % len(raw)] ^= 1 << bit
    with pytest.raises(Refused):
        admit(raw.decode("latin-1"), colony(), NOW)


@given(
    st.one_of(st.text(), st.binary().map(lambda b: base64.urlsafe_b64encode(b).decode()), st.just("." * 3))
)
def test_whatever_the_text_is_the_answer_is_no(text: str) -> None:
    for given_ in (text, f"{text}.{text}.{text}", f"{token().split('.')[0]}.{text.strip('=')}.AAAA"):
        with pytest.raises(Refused):
            admit(given_, colony(), NOW)


def test_one_text_for_one_value_and_a_bounded_one() -> None:
    header, claims, signature = token().split(".")
    for text in (
        f"{header}.{claims}.{signature}=",
        f"{header}.{claims}.{signature}\n",
        f" {header}.{claims}.{signature}",
        f"{header}.{claims}.{signature[:-1]}{chr(ord(signature[-1]) + 1)}",
        f"{header}.{'A' * bearer.MAX_TOKEN_CHARS}.{signature}",
        f"{header}.{bearer._segment(b'[' * 1_000)}.{signature}",
    ):
        with pytest.raises(Refused):
            admit(text, colony(), NOW)


def test_what_it_says_is_what_was_given() -> None:
    made, said = issue(colony(), KEYS["owner"], "bob", expires_s=90, now=NOW)
    assert read(made) == said
    assert said == Bearer(
        ACCOUNT, "bob", KEYS["bob"].public, KEYS["owner"].public, NOW // SECOND, NOW // SECOND + 90, said.jti
    )
    assert KEYS["owner"].seed not in made
