"""A section of a job file: what is not known in it is an error that names the field and what it may be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from oblivio.core.errors import BadInput, nearest

S = TypeVar("S", bound="Section")


class Section(BaseModel):
    """Base of all sections. ``short`` names the field that a value in place of a mapping stands for."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    short: ClassVar[str | None] = None

    @model_validator(mode="before")
    @classmethod
    def _lengthen(cls, value: Any) -> Any:
        plain = not isinstance(value, dict | BaseModel)
        return {cls.short: value} if plain and cls.short is not None and value is not None else value

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """One from values, as a command line has them. Raises BadInput as ``parse`` does."""
        return parse(cls, fields)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a job file.

        Raises:
            BadInput: no such file, no YAML, or a field that is unknown, missing or not allowed to be what it is.
        """
        return parse(cls, fields_of(path), str(path))

    def to_yaml(self) -> str:
        """As a file that is read again, with every default visible."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def but(self, **changes: Any) -> Self:
        """A copy with other values, all of which then count as given."""
        return self.model_copy(update=changes)


def fields_of(path: str | Path) -> dict[str, Any]:
    """What a job file holds. Raises BadInput for no such file, no YAML, or no fields."""
    try:
        value = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{path} holds no job: fields such as data, model, forget and method are needed")
    return value


def parse(section: type[S], value: Any, where: str = "") -> S:
    """``value`` as a section.

    Raises:
        BadInput: the first fault, as ``where: path.of.field = given: what is allowed``.
    """
    try:
        return section.model_validate(value)
    except ValidationError as error:
        raise BadInput(f"{where}{': ' if where else ''}{_fault(section, error.errors()[0])}") from None


def _fault(section: type[Section], error: ErrorDetails) -> str:
    path, known = _walk(section, error["loc"])
    if error["type"] == "extra_forbidden":
        name = path[-1]
        return f"{'.'.join(path)}: there is no such field{nearest(name, known)}"
    if error["type"] == "missing":
        return f"{'.'.join(path)}: this field is needed"
    message = error["msg"].removeprefix("Value error, ")
    return f"{'.'.join(path) or 'the job'} = {error['input']!r}: {message[:1].lower()}{message[1:]}"


def _walk(section: type[Section], loc: Sequence[str | int]) -> tuple[list[str], list[str]]:
    """The path that the user wrote, without what unions add, and the fields known where it ends."""
    path: list[str] = []
    inside: type[Section] | None = section
    for part in loc:
        known = list(inside.model_fields) if inside else []
        if inside is None and isinstance(part, str):
            break
        path.append(str(part))
        field = inside.model_fields.get(str(part)) if inside else None
        inside = _section(field.annotation) if field else inside if isinstance(part, int) else None
        if inside is None and field is None:
            break
    return path, known


def _section(annotation: Any) -> type[Section] | None:
    """The section in ``Section``, ``Section | None`` or ``list[Section]``."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((s for s in map(_section, getattr(annotation, "__args__", ())) if s), None)
