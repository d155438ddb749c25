"""The fields of a job file, from the sections' types and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from oblivio.jobs.section import Section

OWN = {
    "data.task": "classification, binary, multilabel or regression: of a table or a hub's set; of a function's rows, "
    "where their targets do not tell it.",
    "data.train": "of a hub's set: the split to train on.",
    "data.test": "the share of rows to test on, another file, or of a hub's set a split; default 0.2.",
    "data.seed": "of the draw of the test rows.",
    "data.size": "of images: height and width that they are resized to.",
    "data.channels": "of a folder of images: 3 for colour, 1 for grey.",
    "method.name": "one of `oblivio methods`.",
    "method.settings": "of the method, see `oblivio show NAME`; those left out are its defaults.",
    "method.pieces[].name": "`sam` or `loreun`.",
    "method.pieces[].settings": "of the piece.",
    "recipe.optimiser": "as in torch.",
    "recipe.lr": "the learning rate.",
    "recipe.momentum": "of sgd.",
    "recipe.wd": "weight decay.",
    "recipe.epochs": "passes over the rows.",
    "recipe.batch": "rows a step.",
    "references.count": "so many are trained here.",
    "references.given[].model": "a safetensors file, or a folder that oblivio saved.",
}  # where the docstring has one sentence for several fields, or none


def fields(section: type[Section], above: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Of every field its path, what it may be, its default and what it is."""
    schema, told = section.model_json_schema(), _attributes(section)
    for name, field in section.model_fields.items():
        inner, many = _section(field.annotation)
        path = f"{above}{name}"
        if inner is None:
            default = "needed" if field.is_required() else "" if field.default is None else f"`{_plain(field.default)}`"
            words = told.get(name) or OWN[path]
            yield path, _kind(schema["properties"][name], schema.get("$defs", {})), default, words
            continue
        short = f"one value, for `{path}.{inner.short}`, or the fields below" if inner.short else "the fields below"
        kind = f"a list; each {'is' * bool(inner.short)}{'has' * (not inner.short)} {short}" if many else short
        default = "needed" if field.is_required() else ""
        yield path, kind, default, (inspect.getdoc(inner) or "").partition("\n")[0]
        yield from fields(inner, f"{path}[]." if many else f"{path}.")


def _section(annotation: Any) -> tuple[type[Section] | None, bool]:
    """The section in an annotation, and whether it holds many."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, False
    many = getattr(annotation, "__origin__", None) is list
    for inside in getattr(annotation, "__args__", ()):
        if found := _section(inside)[0]:
            return found, many
    return None, False


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


LIMITS = {
    "exclusiveMinimum": "above {:g}",
    "minimum": "at least {:g}",
    "exclusiveMaximum": "below {:g}",
    "maximum": "at most {:g}",
}
TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}


def _kind(schema: dict[str, Any], known: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _kind(known[schema["$ref"].rpartition("/")[2]], known)
    if "anyOf" in schema:
        return " or ".join(_kind(each, known) for each in schema["anyOf"] if each.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'], known)}"
    if schema.get("type") == "object":
        return "mapping"
    if "pattern" in schema:
        return "`package.module:function`"
    limits = [words.format(schema[name]) for name, words in LIMITS.items() if name in schema]
    return ", ".join([TYPES[schema["type"]], *limits])


ENTRY = re.compile(r"^\s{4}(?P<names>[a-z_]+(?:, [a-z_]+)*): (?P<words>.*)$")


def _attributes(section: type[Section]) -> dict[str, str]:
    """What a section's docstring says of its fields, under ``Attributes:``."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in (inspect.getdoc(section) or "").partition("Attributes:\n")[2].splitlines():
        if entry := ENTRY.match(line):
            names = entry["names"].split(", ")
            found |= dict.fromkeys(names, entry["words"])
        else:
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return {name: words.replace("``", "`") for name, words in found.items()}
