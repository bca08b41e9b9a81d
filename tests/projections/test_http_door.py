"""Where HTTP listens: on this machine unless told, on others' only with TLS, and never over somebody else."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import ssl
from pathlib import Path

import pytest
from colonies_projections.http import Listen, open_door
from colonies_projections.http.door import address, host_name
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from colonies.errors import Invalid, Unavailable
from tests.harness import RunningColony
from tests.projections.web import serving, token_of


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:0", ("127.0.0.1", 0)),
        ("[::1]:4280", ("::1", 4280)),
        ("0.0.0.0:443", ("0.0.0.0", 443)),
    ],
)
def test_an_address_and_a_port(text: str, place: tuple[str, int]) -> None:
    assert address(text) == place


@pytest.mark.parametrize(
    "text", ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "lab:80", "::1:80", "[::1]"]
)
def test_what_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Invalid, match=r"--listen .*: allowed: an IP address or localhost, and a port, such"):
        address(text)


@pytest.mark.parametrize("text", ["", "a b", "a:80", "-a", "a/b", "x" * 300])
def test_a_host_is_a_name(text: str) -> None:
    assert host_name("Colonies.Example") == "colonies.example"
    with pytest.raises(Invalid, match="--host"):
        host_name(text)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_tls_others_are_not_let_in_unless_it_is_said(host: str) -> None:
    with pytest.raises(Invalid, match="without TLS everybody on the way can read and take the tokens"):
        open_door(Listen(host, 0))


def test_with_insecure_they_are() -> None:
    with open_door(Listen("0.0.0.0", 0, insecure=True)) as door:
        assert door.url == f"http://127.0.0.1:{door.port}"
        assert door.admits("whatever.example")
    with open_door(Listen("0.0.0.0", 0, insecure=True, names=("a.example",))) as door:
        assert door.admits("A.example:80")
        assert not door.admits("b.example")


def test_a_proxys_name_is_let_in_on_loopback() -> None:
    with open_door(Listen(port=0, names=("colonies.example",))) as door:
        assert door.admits("colonies.example")
        assert door.admits("localhost:1")
        assert not door.admits("evil.example")


def test_a_port_that_is_taken_is_said_with_who_has_it_and_what_to_do() -> None:
    with open_door(Listen(port=0)) as first:
        with pytest.raises(Unavailable) as raised:
            open_door(Listen(port=first.port))
        said = str(raised.value)
        assert said.startswith(f"port {first.port} of 127.0.0.1 is taken by ")
        assert f"(pid {os.getpid()})" in said
        assert said.endswith("Stop that, or: --listen 127.0.0.1:0 takes any free port")
        with open_door(Listen(port=first.port), elsewhere=True) as second:
            assert second.port != first.port
    with open_door(Listen(port=first.port)) as again:
        assert again.port == first.port


def test_an_address_that_is_not_this_machines_is_said() -> None:
    with pytest.raises(Unavailable, match=r"192\.0\.2\.1 is no address of this machine"):
        open_door(Listen("192.0.2.1", 0, insecure=True))


# --- TLS -------------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str, password: bytes | None = None) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    how: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        how = serialization.BestAvailableEncryption(password)
    cert, secret = folder / f"{name}.pem", folder / f"{name}.key"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    secret.write_bytes(key.private_bytes(pem, form, how))
    return cert, secret


async def test_it_speaks_tls_where_others_come_in(colony: RunningColony, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "a")
    session = await colony.session("http", "observer")
    async with serving(session, Listen("0.0.0.0", 0, cert, key)) as web:
        assert web.door.url == f"https://127.0.0.1:{web.door.port}"
        web.tls = ssl.create_default_context(cafile=str(cert))
        token = await token_of(colony.owner)
        assert (await web.get("/v1/processes/x", token)).status == 404
        async with web.events(token, "?after=0") as feed:
            assert (await feed.next()).id == 1
        web.tls.maximum_version = ssl.TLSVersion.TLSv1_2
        assert (await web.get("/openapi.json")).status == 200
        with socket.create_connection(("127.0.0.1", web.door.port)) as plain:
            plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")


def test_a_certificate_and_a_key_that_do_not_go_together_are_said(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "a")
    other, _ = certificate(tmp_path, "b")
    _, locked = certificate(tmp_path, "c", b"secret")
    junk = tmp_path / "junk"
    junk.write_text("junk")
    for pair, why in (
        ((cert, None), "one goes with the other; give both"),
        ((None, key), "one goes with the other; give both"),
        ((other, key), "no certificate and key that go together"),
        ((junk, key), "no certificate and key that go together"),
        ((cert, junk), "no certificate and key that go together"),
        ((tmp_path / "none", key), "there is no file"),
        ((cert, tmp_path), "there is no file"),
        ((cert, locked), "--tls-key: the key is encrypted"),
    ):
        with pytest.raises(Invalid, match=why):
            open_door(Listen(port=0, certificate=pair[0], key=pair[1]))
