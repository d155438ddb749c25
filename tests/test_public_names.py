"""The public names: all there, each the same at every touch, in any order, and imported late."""

from __future__ import annotations

import subprocess
import sys

import pytest

import oblivio as ob

NAMES = [
    "Problem", "methods", "where", "how", "terms", "data", "learner",
    "forget", "learn", "audit", "protect", "load", "save",
]  # fmt: skip

TOUCH = """
import importlib, sys, types
import oblivio
assert "torch" not in sys.modules
for name in {first!r}:
    if "." in name:
        importlib.import_module(name)
    else:
        getattr(oblivio, name)
for name in {names!r} * 2:
    value = getattr(oblivio, name)
    package = name in ("methods", "where", "how", "terms", "data")
    assert isinstance(value, types.ModuleType) == package, (name, value)
    assert package or callable(value), name
    assert value is getattr(oblivio, name), name
"""


def test_exactly_these_are_promised() -> None:
    assert sorted(ob.__all__) == sorted([*NAMES, "__version__"])
    assert dir(ob) == sorted(ob.__all__)


ORDERS = {
    "as listed": [], "backwards": NAMES[::-1], "verbs first": ["save", "forget", "audit"],
    "modules first": ["oblivio.verbs", "oblivio.audits.audit", "oblivio.jobs.forget", "oblivio.learners.learner"],
    "deep first": ["oblivio.terms.relabel", "oblivio.methods.unlearning.relabelling.relabel", "oblivio.where.saliency"],
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
def test_every_name_at_every_touch_in_any_order(order: str) -> None:
    code = TOUCH.format(first=ORDERS[order], names=NAMES)
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_verb_shares_its_name_with_a_module() -> None:
    import importlib.util

    verbs = set(NAMES) - {"Problem", "methods", "where", "how", "terms", "data"}
    assert [name for name in verbs if importlib.util.find_spec(f"oblivio.{name}")] == []


def test_what_is_not_promised_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'remember'; it has Problem"):
        ob.remember  # noqa: B018
