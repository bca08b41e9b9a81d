"""The ledger told as spans, and exported by OTLP (docs/tracing.md).

`spans` says which spans events make, `telling` keeps what that takes, `otlp` sends them, `exporter` is the
service. Only `otlp` imports OpenTelemetry, which comes with the extra `otel`.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

INSTALL = "pip install 'colonies[otel]'"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
ENDPOINTS = (ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_DISABLED = "OTEL_SDK_DISABLED"
_EXPORTER = "OTEL_TRACES_EXPORTER"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Does the environment ask for spans to be exported, by the variables of OpenTelemetry?"""
    return any(map(environment.get, ENDPOINTS)) and _switched_off(environment) is None


def why_not(environment: Mapping[str, str] = os.environ) -> str | None:
    """Why spans cannot be exported from here, and what to do; None: they can."""
    if (name := _switched_off(environment)) is not None:
        return f"{name}={environment[name]} switches it off"
    if not wanted(environment):
        return f"there is nowhere to export to: set {ENDPOINT}, to http://localhost:4318 for example"
    if (wrong := malformed(environment)) is not None:
        return wrong
    if not installed():
        return f"what exports spans is not installed: {INSTALL}"
    said = next((environment[name] for name in _PROTOCOLS if environment.get(name)), _PROTOCOL)
    if said != _PROTOCOL:
        return f"{_PROTOCOLS[0]}: {said!r} is not spoken here; allowed: {_PROTOCOL}"
    return None


def malformed(environment: Mapping[str, str] = os.environ) -> str | None:
    """What is wrong with the endpoint that the environment says, and what would be right; None: nothing.

    Of what it says only the host is shown: the rest may be a secret.
    """
    name = next((name for name in reversed(ENDPOINTS) if environment.get(name)), None)
    if name is None or not wanted(environment):
        return None
    said = environment[name].strip()
    try:
        parts = urlsplit(said)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if good:
        return None
    host = said.rpartition("://")[2].partition("/")[0].partition("?")[0].rpartition("@")[2]
    right = f"http://{host}" if _HOST.fullmatch(host) else "http://localhost:4318"
    return (
        f"{name}: {host!r} is no URL of an endpoint; allowed: http:// or https://, a host and a port: {right}"
    )


def installed() -> bool:
    """Is the extra `otel` there?"""
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


def _switched_off(environment: Mapping[str, str]) -> str | None:
    """The variable that does."""
    if environment.get(_DISABLED, "").strip().lower() == "true":
        return _DISABLED
    return _EXPORTER if environment.get(_EXPORTER, "").strip() not in ("", "otlp") else None
