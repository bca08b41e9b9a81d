"""The page at /docs: the OpenAPI schema as plain HTML. No script, nothing loaded from anywhere."""

from __future__ import annotations

from html import escape
from typing import Any, Final

STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
body{color:#222;background:#fff}
code{font-family:ui-monospace,monospace;background:#f2f2f2;padding:.1em .3em;border-radius:.2em}
section{border-top:1px solid #ccc;padding:.5rem 0}
table{border-collapse:collapse}td,th{text-align:left;padding:.15rem 1rem .15rem 0;vertical-align:top}
@media (prefers-color-scheme:dark){
body{color:#ddd;background:#111}code{background:#222}section{border-color:#444}a{color:#8bf}}
"""


def rendered(schema: dict[str, Any]) -> str:
    """The page for an OpenAPI schema."""
    info = schema["info"]
    paths = schema["paths"].items()
    operations = "".join(_operation(path, said["get"]) for path, said in paths if "get" in said)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>{_text(info.get('description', ''))}"
        f'<p>For programs: <a href="/openapi.json">/openapi.json</a></p>{operations}</body></html>'
    )


def _operation(path: str, said: dict[str, Any]) -> str:
    token = "a bearer token" if said.get("security") else "no token"
    rows = "".join(map(_parameter, said.get("parameters", [])))
    table = (
        f"<table><tr><th>parameter</th><th>in</th><th>values</th><th></th></tr>{rows}</table>" if rows else ""
    )
    answers = ", ".join(f"{code} {answer['description']}" for code, answer in said["responses"].items())
    return (
        f"<section><h2><code>GET {escape(path)}</code></h2>"
        f"<p>{escape(said.get('summary', ''))}. Needs {token}.</p>"
        f"{_text(said.get('description', ''))}{table}<p>Answers: {escape(answers)}</p></section>"
    )


def _parameter(said: dict[str, Any]) -> str:
    schema = said.get("schema", {})
    schema = next((one for one in schema.get("anyOf", ()) if one.get("type") != "null"), schema)
    values = ", ".join(map(str, schema.get("enum", ()))) or str(schema.get("type", ""))
    cells = (said.get("in", ""), values, said.get("description", ""))
    texts = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr><td><code>{escape(said['name'])}</code></td>{texts}</tr>"


def _text(text: str) -> str:
    return "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n") if part.strip())
