"""The page that describes the HTTP interface: plain HTML without scripts, made from its OpenAPI description."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_STYLE = "body{font:16px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em}code,pre{background:#eee}"


def page(description: Mapping[str, Any]) -> str:
    """The page for an OpenAPI description."""
    info = description["info"]
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{escape(info['title'])}</h1>",
        f"<p>{escape(info['description'])}</p>",
        '<p>Schemas of requests and replies, for programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            parts += _operation(f"{method.upper()} {path}", operation)
    return "\n".join([*parts, "</body></html>\n"])


def _operation(name: str, operation: Mapping[str, Any]) -> list[str]:
    needs = "<p>Needs a bearer token.</p>" if operation.get("security") else ""
    rows = "".join(
        f"<li><code>{escape(status)}</code> {escape(reply['description'])}</li>"
        for status, reply in operation["responses"].items()
    )
    return [f"<h2><code>{escape(name)}</code></h2>", f"<p>{escape(operation['description'])}</p>{needs}<ul>{rows}</ul>"]
