"""What the columns of a table are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oblivio.core.errors import BadInput, nearest

ROLES = ("input", "target", "id", "group", "text", "image")


@dataclass(frozen=True)
class Roles:
    """Columns by role; ``left_out`` are those without one."""

    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    id: str | None
    group: str | None
    image: str | None
    left_out: tuple[str, ...]


def assign(columns: Sequence[str], roles: Mapping[str, str]) -> Roles:
    """Sort columns by role.

    Where no column is called an input or an image, every column without a role is an input; else those are left out.

    Raises:
        BadInput: an unknown column or role (with the nearest), no target, two ids, groups or images, text (for which
            there is no model yet), an image beside inputs, or no input at all.
    """
    _check_known(columns, roles)
    by_role = {role: [c for c in columns if roles.get(c) == role] for role in ROLES}
    _check_counts(by_role)
    rest = [c for c in columns if c not in roles]
    named = bool(by_role["input"] or by_role["image"])
    inputs = by_role["input"] if named else rest
    if not inputs and not by_role["image"]:
        raise BadInput(f"no column is left as an input; the columns are {', '.join(columns)}")
    return Roles(
        tuple(inputs),
        tuple(by_role["target"]),
        _only(by_role["id"]),
        _only(by_role["group"]),
        _only(by_role["image"]),
        tuple(rest) if named else (),
    )


def _check_known(columns: Sequence[str], roles: Mapping[str, str]) -> None:
    for column, role in roles.items():
        if column not in columns:
            raise BadInput(f"the table has no column {column!r}{nearest(column, columns)}")
        if role not in ROLES:
            raise BadInput(f"column {column!r} has the unknown role {role!r}{nearest(role, ROLES)}")


def _check_counts(by_role: Mapping[str, list[str]]) -> None:
    if by_role["text"]:
        raise BadInput(
            f"column {by_role['text'][0]!r} is text, and this release has no model of text; leave it out, "
            "or give it the role input if it holds categories"
        )
    if not by_role["target"]:
        raise BadInput("no column has the role target; say which one is to be predicted")
    for role in ("id", "group", "image"):
        if len(by_role[role]) > 1:
            raise BadInput(f"{', '.join(by_role[role])} all have the role {role}; one can")
    if by_role["image"] and by_role["input"]:
        raise BadInput(
            f"{by_role['image'][0]!r} is an image and {by_role['input'][0]!r} an input; a model takes one or the other"
        )


def _only(columns: Sequence[str]) -> str | None:
    return columns[0] if columns else None
