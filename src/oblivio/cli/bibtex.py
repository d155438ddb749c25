"""A method's source as BibTeX, from the one line that its file has on it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import oblivio
from oblivio.registry import Spec

PAPER = re.compile(r"(?:(?P<who>[^,]+) et al\., )?(?P<title>.+), (?:(?P<where>[^,]*?) )?(?P<year>\d{4})(?: \(.*\))?$")


def entries(spec: Spec) -> str:
    """The method's paper, or a comment where it has none, and this package."""
    software = _entry("software", "oblivio", {"title": "Oblivio", "version": oblivio.__version__})
    return "\n\n".join([paper(spec.id, spec.paper), software])


def paper(name: str, line: str) -> str:
    """One entry.

    >>> print(paper("salun", "Fan et al., SalUn: Saliency, ICLR 2024"))
    @misc{salun,
      author = {Fan and others},
      title = {SalUn: Saliency},
      howpublished = {ICLR},
      year = {2024},
    }
    """
    found = PAPER.match(line)
    if found is None:
        return f"% {name}: {line}"
    author = f"{found['who']} and others" if found["who"] else ""
    fields = {"author": author, "title": found["title"], "howpublished": found["where"] or "", "year": found["year"]}
    return _entry("misc", name, fields)


def _entry(kind: str, name: str, fields: Mapping[str, str]) -> str:
    lines = [f"  {field} = {{{value}}}," for field, value in fields.items() if value]
    return "\n".join([f"@{kind}{{{name},", *lines, "}"])
