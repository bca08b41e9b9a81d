"""The ledger told as spans, and exported by OTLP (docs/tracing.md).

`spans` says which spans events make, `telling` keeps what that takes, `otlp` sends them, `exporter` is the
service. Only `otlp` imports OpenTelemetry, which comes with the extra `otel`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping

INSTALL = "pip install 'colonies[otel]'"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
ENDPOINTS = (ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_DISABLED = "OTEL_SDK_DISABLED"
_EXPORTER = "OTEL_TRACES_EXPORTER"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Does the environment ask for spans to be exported, by the variables of OpenTelemetry?"""
    return any(map(environment.get, ENDPOINTS)) and _switched_off(environment) is None


def why_not(environment: Mapping[str, str] = os.environ) -> str | None:
    """Why spans cannot be exported from here, and what to do; None: they can."""
    if (name := _switched_off(environment)) is not None:
        return f"{name}={environment[name]} switches it off"
    if not wanted(environment):
        return f"there is nowhere to export to: set {ENDPOINT}, to http://localhost:4318 for example"
    if not installed():
        return f"what exports spans is not installed: {INSTALL}"
    said = next((environment[name] for name in _PROTOCOLS if environment.get(name)), _PROTOCOL)
    if said != _PROTOCOL:
        return f"{_PROTOCOLS[0]}: {said!r} is not spoken here; allowed: {_PROTOCOL}"
    return None


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
