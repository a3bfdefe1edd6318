"""A plain page without scripts: the models served, and the API's documentation from its OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from gpt2lab.version import __version__

if TYPE_CHECKING:
    from gpt2lab.serving.models import ServedModel


def docs_page(document: Mapping[str, Any], models: Iterable[ServedModel]) -> str:
    """Return the page: the models, and every operation with its statuses and the fields of its request and answer."""
    schemas = document["components"]["schemas"]
    parts = [
        f"<p>This is <code>gpt2lab serve</code>, version {escape(__version__)}: GPT-2 for programs, through "
        'OpenAI\'s completions API. <a href="./">The playground</a> is a page over the same API. See also: '
        '<a href="openapi.json">the OpenAPI document</a>, <a href="metrics">metrics</a>.</p>',
        f"<h2>Models</h2>{_models(models)}",
        '<h2>Addresses</h2><p>The body of every error is <code>{"error": {message, type, param, code}}</code>.</p>',
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append(f'<h3 id="{escape(path)}"><code>{method.upper()} {escape(path)}</code></h3>')
            parts.append(f"<p>{escape(operation.get('description', ''))}</p>")
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            if body:
                parts.append(_fields("Request", path, body, schemas))
            answers = operation["responses"]
            answer = answers["200"].get("content", {}).get("application/json", {}).get("schema")
            if answer and "$ref" in answer:
                parts.append(_fields("Answer", path, answer, schemas))
            rows = [[escape(status), escape(said.get("description", ""))] for status, said in answers.items()]
            parts.append(f"<h4>Statuses</h4>{_table(f'Statuses of {path}', ['status', 'meaning'], rows)}")
    return _page("gpt2lab: the API", "".join(parts))


def _models(models: Iterable[ServedModel]) -> str:
    rows = [
        [
            _code(served.name),
            f"{served.model.config.n_params / 1e6:,.1f}M parameters",
            f"{served.model.config.n_ctx} tokens",
            _code(served.model.precision),
        ]
        for served in models
    ]
    return _table("Models", ["name", "size", "context", "precision"], rows)


def _fields(title: str, path: str, schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    fields = schemas[schema["$ref"].rpartition("/")[2]]["properties"]
    rows = [[_code(name), escape(_kind(field)), escape(field.get("description", ""))] for name, field in fields.items()]
    return f"<h4>{title}</h4>{_table(f'{title} of {path}', ['field', 'type', 'meaning'], rows)}"


def _kind(field: Mapping[str, Any]) -> str:
    """Return a field's type and range in a few words."""
    if "anyOf" in field:
        return " or ".join(_kind(kind) for kind in field["anyOf"] if kind.get("type") != "null")
    if "$ref" in field:
        return str(field["$ref"].rpartition("/")[2])
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items', {}))}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[name]:,}" for name, sign in signs.items() if name in field]
    return " ".join([str(field.get("type", "anything")), ", ".join(bounds)]).strip()


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _table(label: str, heads: list[str], rows: list[list[str]]) -> str:
    """Return a table in its own box, which scrolls on a narrow screen, also with the keyboard."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="table" role="region" aria-label="{escape(label)}" tabindex="0">{table}</div>'


def _page(title: str, content: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,"><link rel="stylesheet" href="page/docs.css"></head>'
        f"<body><main><h1>{escape(title)}</h1>{content}</main></body></html>"
    )
