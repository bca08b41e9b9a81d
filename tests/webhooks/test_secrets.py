"""The secret of a webhook is nobody's but the owner's who made it, the service's and the receiver's."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

import pytest

from colonies import rotation, sealing
from colonies.core.webhooks import Webhook
from colonies.errors import Invalid
from colonies.nkeys import KeyPair, agree
from colonies.webhook_orders import Order
from colonies.webhooks import change_webhook, read_secret, secret_of, shown_secret, unserved
from tests.webhooks.ground import ground, stopped

TOO_SHORT, TOO_LONG = shown_secret(bytes(23)), shown_secret(bytes(65))
SECRET = hashlib.sha256(b"a secret that can be looked for").digest()


def test_only_the_key_that_it_was_sealed_for_opens_a_secret() -> None:
    ours, other = KeyPair.new("user"), KeyPair.new("user")
    sealed = sealing.seal(SECRET, ours.public, b"ops")
    assert sealing.open_sealed(sealed, ours, b"ops") == SECRET
    assert SECRET not in sealed
    assert sealing.seal(SECRET, ours.public, b"ops") != sealed
    for keypair, about in ((other, b"ops"), (ours, b"other")):
        with pytest.raises(Invalid, match="sealed for another key, or about something else"):
            sealing.open_sealed(sealed, keypair, about)
    for place in range(len(sealed)):
        spoiled = bytearray(sealed)
        spoiled[place] ^= 1
        with pytest.raises(Invalid):
            sealing.open_sealed(bytes(spoiled), ours, b"ops")


def test_what_is_no_sealed_secret_is_said_to_be_none() -> None:
    ours = KeyPair.new("user")
    order_8 = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
    for junk in (b"", bytes(32), bytes(80), b"x" * 80, order_8 + bytes(48)):
        with pytest.raises(Invalid):
            sealing.open_sealed(junk, ours, b"ops")
    with pytest.raises(Invalid, match="characters"):
        sealing.seal(SECRET, "U", b"ops")


def test_both_halves_of_a_key_mean_the_same_on_both_curves() -> None:
    for _ in range(100):
        keypair = KeyPair.new("user")
        public, shared = agree(keypair.public, os.urandom(32))
        assert keypair.shared_with(public) == shared
        assert len(public) == len(shared) == 32


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_secret_is_read_as_it_is_shown(size: int) -> None:
    secret = bytes(range(size))
    assert read_secret(shown_secret(secret)) == secret
    assert read_secret(f" {base64.b64encode(secret).decode().rstrip('=')}\n") == secret


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_ä", "whsec_!!!!", TOO_SHORT, TOO_LONG])
def test_a_secret_that_is_none_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_secret(text)
    assert len(text) < 8 or text.removeprefix("whsec_") not in str(refused.value)


async def test_a_secret_stands_nowhere_in_the_clear(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        await at.send()
        (at.receiver.folder / "status").write_text("500")
        await at.add("ops", "file", secret=SECRET)
        await at.submit(3)
        await at.until("ops", lambda said: said["dead"], "dead letters")
        await at.order(Order("test", "ops"))
        forms = (SECRET, base64.b64encode(SECRET), SECRET.hex().encode())
        files = [path for path in at.colony.folder.rglob("*") if path.is_file()]
        assert any(path.suffix == ".blk" for path in files)
        assert at.file in files
        for path in files:
            data = path.read_bytes()
            assert not any(form in data for form in forms), path
        assert (at.file.stat().st_mode & 0o777) == 0o600


async def test_a_sealed_secret_opens_for_its_webhook_and_address_only(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        service = await at.colony.session("webhooks", "observer")
        await at.owner.refresh()
        await at.add("ops", secret=SECRET)
        found = await at.webhook("ops")
        assert secret_of(service, found) == SECRET
        moved = dict.fromkeys(Webhook.__dataclass_fields__)
        moved = {name: getattr(found, name) for name in moved}
        for change in ({"name": "mine"}, {"url": "https://example.com/"}):
            with pytest.raises(Invalid):
                secret_of(service, Webhook(**{**moved, **change}))
        observer = await at.colony.session("other", "observer")
        with pytest.raises(Invalid):
            secret_of(observer, found)


async def test_a_service_with_another_key_says_so_and_nothing_is_lost(tmp_path: Path) -> None:
    async with ground(tmp_path) as at:
        task = await at.send()
        await at.add("ops", secret=SECRET, events=["process.*"])
        await stopped(task)
        path = at.colony.folder / "webhooks.creds"
        await rotation.rotate(at.owner, at.colony.keyring.owner, at.colony.url, path)
        await at.send()
        sequences = await at.submit(2)
        said = await at.until("ops", lambda said: said["pending"] == 2, "two wait")
        assert said["state"] == "locked"
        assert not at.receiver.requests()
        await at.owner.refresh()
        why = unserved(at.owner.colony, await at.webhook("ops"), await at.owner.ledger.now())
        assert why == "webhooks has another key than when the secret was sealed for it"
        await change_webhook(at.owner, "ops", secret=SECRET)
        await at.heard(sequences)
        said = await at.until("ops", lambda said: said["delivered"] == 2, "both are delivered")
        assert said["state"] == "active"
