"""Where requests go, and where never: addresses, certificates, proxies."""

from __future__ import annotations

import datetime
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from colonies_projections.webhooks.addresses import refusal
from colonies_projections.webhooks.sending import MAX_RETRY_AFTER_S, open_sender, retry_after_s
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.webhooks.ground import Receiver, ground

NEVER = (
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "fd00:ec2::254",
    "100.100.100.200",
    "192.0.0.192",
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
    "240.0.0.1",
)
NOT_PUBLIC = ("127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "fd00::1", "::ffff:10.0.0.1")
PUBLIC = ("1.1.1.1", "2606:4700:4700::1111")


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_never_sent_to(address: str) -> None:
    assert refusal(address, public_only=False)
    assert refusal(address, public_only=True)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_this_network_is_sent_to_unless_the_service_is_for_public_addresses_only(address: str) -> None:
    assert refusal(address, public_only=False) is None
    assert "is not public" in (refusal(address, public_only=True) or "")


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_sent_to(address: str) -> None:
    assert refusal(address, public_only=True) is None


@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:169.254.169.254]", "0.0.0.0"])
async def test_nothing_connects_to_such_an_address(host: str) -> None:
    async with open_sender(wait_s=5) as sender:
        outcome = await sender.send(f"http://{host}/latest/meta-data", bytes(32), "evt_1", b"{}")
    assert outcome.status is None
    assert outcome.error is not None
    assert outcome.error.startswith("not sent: ")


async def test_a_name_is_judged_by_the_address_that_it_has(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path / "receiver")
    await receiver.start()
    try:
        async with open_sender(public_only=True) as sender:
            url = f"http://localhost:{receiver.port}/ok"
            outcome = await sender.send(url, bytes(32), "evt_1", b"{}")
            assert "is not public" in (outcome.error or "")
        assert not receiver.requests()
        async with open_sender() as sender:
            assert (await sender.send(url, bytes(32), "evt_1", b"{}")).status == 200
    finally:
        await receiver.kill()


async def test_no_proxy_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with ground(tmp_path) as at:
        await at.send()
        await at.add("ops", events=["process.*"])
        await at.heard(await at.submit())


async def test_what_has_no_good_certificate_is_told_nothing(own_ca: tuple[int, list[str], str]) -> None:
    port, requests, _ = own_ca
    async with open_sender() as sender:
        outcome = await sender.send(f"https://localhost:{port}/", bytes(32), "evt_1", b"{}")
    assert outcome.error is not None
    assert outcome.error.startswith("its certificate is not accepted: ")
    assert not requests


async def test_a_certificate_that_this_machine_trusts_is_good(
    own_ca: tuple[int, list[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, requests, certificate = own_ca
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    async with open_sender() as sender:
        outcome = await sender.send(f"https://localhost:{port}/", bytes(32), "evt_1", b"{}")
    assert (outcome.status, outcome.error) == (200, None)
    assert requests == ["evt_1"]


@pytest.mark.parametrize("url", ["https://no-such-host.invalid/", "http://no-such-host.invalid/"])
async def test_a_host_that_is_not_there_is_said_to_be_none(url: str) -> None:
    async with open_sender(wait_s=30) as sender:
        outcome = await sender.send(url, bytes(32), "evt_1", b"{}")
    assert outcome.error == "its host is not known"


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after_s("120") == 120
    assert retry_after_s(" 5 ") == 5
    assert retry_after_s("9" * 30) == MAX_RETRY_AFTER_S
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90)
    said = retry_after_s(later.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    assert said is not None
    assert 80 < said <= 90
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    for junk in ("", "soon", "-1", "1.5", "٣"):
        assert retry_after_s(junk) is None


@pytest.fixture
def own_ca(tmp_path: Path) -> Iterator[tuple[int, list[str], str]]:
    """An HTTPS server whose certificate only it believes: its port, what it heard, the certificate's file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file, key_file = tmp_path / "certificate.pem", tmp_path / "key.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(self.headers["webhook-id"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1], requests, str(file)
    server.shutdown()
    server.server_close()
    thread.join(30)
