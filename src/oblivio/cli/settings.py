"""A method's settings as options of the command line, made from the text of its signature without importing it."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from oblivio.registry import Setting, Spec

LIMITS = {"gt": "above {}", "ge": "at least {}", "lt": "below {}", "le": "at most {}"}
SIMPLE: dict[str, type] = {"float": float, "int": int, "bool": bool, "str": str}


@dataclass(frozen=True)
class Shape:
    """What a setting may be: its type, and its limits or choices in words."""

    type: str
    allowed: str = ""


def shape(setting: Setting) -> Shape:
    """Read the annotation of a setting.

    >>> shape(Setting("Annotated[float, Field(gt=0, le=1)]", 0.5))
    Shape(type='float', allowed='above 0, at most 1')
    >>> shape(Setting("Literal['shrink', 'expand']", "expand"))
    Shape(type='str', allowed='shrink or expand')
    """
    return _shape(ast.parse(setting.type, mode="eval").body)


def _shape(node: ast.expr) -> Shape:
    match node:
        case ast.Subscript(ast.Name("Annotated"), ast.Tuple([base, *facts])):
            of = _shape(base)
            return Shape(of.type, ", ".join(filter(None, [of.allowed, *map(_limits, facts)])))
        case ast.Subscript(ast.Name("Literal"), inner):
            choices = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return Shape("str", " or ".join(str(ast.literal_eval(choice)) for choice in choices))
    return Shape(ast.unparse(node).replace(" | ", " or "))


def _limits(fact: ast.expr) -> str:
    keywords = fact.keywords if isinstance(fact, ast.Call) else []
    return ", ".join(LIMITS[k.arg].format(ast.unparse(k.value)) for k in keywords if k.arg in LIMITS)


# --- as options


def options(spec: Spec, taken: Collection[str]) -> dict[str, Any]:
    """For each setting a keyword of a command, with the annotation from which Typer makes its option."""
    return {keyword: _option(spec.settings[name], spec.id) for name, keyword in keywords(spec, taken).items()}


def keywords(spec: Spec, taken: Collection[str]) -> dict[str, str]:
    """The command's keyword for each setting: its own name, with the method's before it where that is ``taken``."""
    return {name: f"{spec.id}_{name}" if name in taken else name for name in spec.settings}


def _option(setting: Setting, method: str) -> Any:
    of = shape(setting)
    words = "; ".join(filter(None, [of.allowed, f"default {setting.default}"]))
    kind: Any = SIMPLE.get(of.type, str) | None
    return Annotated[kind, typer.Option(help=words, show_default=False, rich_help_panel=f"Settings of {method}")]


def given(spec: Spec, values: Mapping[str, Any], taken: Collection[str]) -> dict[str, Any]:
    """Settings by name, of those keywords that were given."""
    named = {name: values.get(keyword) for name, keyword in keywords(spec, taken).items()}
    return {name: _value(spec.settings[name], value) for name, value in named.items() if value is not None}


def _value(setting: Setting, value: Any) -> Any:
    """Lists, and none, are read as YAML."""
    if shape(setting).type in SIMPLE:
        return value
    import yaml

    return yaml.safe_load(value)


# --- which method


def method_named(words: Sequence[str]) -> str | None:
    """The method that the words of a command ask for: by ``--method``, else in the job file."""
    for word, following in zip(words, [*words, ""][1:], strict=True):
        if word == "--method" or word.startswith("--method="):
            return word.partition("=")[2] or following
    jobs = [word for word in words if word.endswith((".yaml", ".yml"))]
    return _method_in(Path(jobs[0])) if jobs else None


def _method_in(job: Path) -> str | None:
    """The method in a job file; None where it cannot be told: what is wrong is said when the job is read."""
    import yaml

    try:
        found = yaml.safe_load(job.read_text())["method"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return None
    name = found.get("name") if isinstance(found, dict) else found
    return name if isinstance(name, str) else None
