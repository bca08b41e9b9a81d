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

INSTALL = "pip install '.[otel]' in the folder that colonies was installed from"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
ENDPOINTS = (ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_DISABLED = "OTEL_SDK_DISABLED"
_EXPORTER = "OTEL_TRACES_EXPORTER"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_PORT = "its port is no number from 1 to 65535"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Does the environment ask for spans to be exported, by the variables of OpenTelemetry?"""
    return any(map(environment.get, ENDPOINTS)) and _switched_off(environment) is None


def why_not(environment: Mapping[str, str] = os.environ) -> str | None:
    """Why spans cannot be exported from here, and what to do; None: they can."""
    if (other := unsupported(environment)) is not None:
        return other
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


def unsupported(environment: Mapping[str, str] = os.environ) -> str | None:
    """What is wrong with the exporter that the environment asks for; None: nothing."""
    said = environment.get(_EXPORTER, "").strip()
    if said in ("", "otlp", "none") or _switched_off(environment) != _EXPORTER:
        return None
    return f"{_EXPORTER}: {said!r} is not supported here; allowed: otlp, none"


def malformed(environment: Mapping[str, str] = os.environ) -> str | None:
    """What is wrong with the endpoint that the environment says, and what would be right; None: nothing.

    Of what it says only the scheme and the host are shown: the rest may be a secret.
    """
    name = next((name for name in reversed(ENDPOINTS) if environment.get(name)), None)
    if name is None or not wanted(environment):
        return None
    said = environment[name].strip()
    scheme, between, rest = said.partition("://") if "://" in said else ("", "", said)
    if (wrong := _wrong(said, scheme)) is None:
        return None
    host = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
    right = f"{host.rpartition(':')[0]}:4318" if wrong == _PORT else host
    shown = f"{scheme}{between}{host}" if _SCHEME.fullmatch(scheme) else host
    return (
        f"{name}: {shown!r} is no URL of an endpoint: {wrong}; allowed: http:// or https://, a host and a "
        f"port: http://{right if _HOST.fullmatch(right) else 'localhost:4318'}"
    )


def _wrong(said: str, scheme: str) -> str | None:
    if scheme.lower() not in ("http", "https"):
        what = f"{scheme}:// is" if _SCHEME.fullmatch(scheme) else "what it begins with is"
        return f"{what} not spoken here" if scheme else "it does not begin with http:// or https://"
    try:
        parts = urlsplit(said)
        if not parts.hostname:
            return "it names no host"
    except ValueError:
        return "its host is none"
    try:
        return _PORT if parts.port == 0 else None
    except ValueError:
        return _PORT


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
