"""The page at `/`: what the service is and what it answers to, made from its OpenAPI description."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<style>body {{ font-family: sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em }}
td {{ padding: .2em 1em .2em 0; vertical-align: top }} code {{ white-space: nowrap }}</style></head>
<body><h1>{title} {version}</h1>{description}
<table>{rows}</table>
<p><a href="docs">Try it out</a> (loads its scripts from the network) · <a href="openapi.json">OpenAPI
description</a></p></body></html>
"""


def page(description: Mapping[str, Any]) -> str:
    """HTML that needs nothing else. `description` is the OpenAPI document."""
    rows = [
        f"<tr><td><code>{method.upper()} {html.escape(path)}</code></td>"
        f"<td>{html.escape(operation.get('description', ''))}</td></tr>"
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
    ]
    facts = description["info"]
    paragraphs = "".join(
        f"<p>{html.escape(part)}</p>" for part in facts.get("description", "").strip().split("\n\n")
    )
    return _PAGE.format(
        title=html.escape(facts["title"]),
        version=html.escape(facts["version"]),
        description=paragraphs,
        rows="\n".join(rows),
    )
