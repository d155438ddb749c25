"""Where, top, seeds, optimisers, plans as values, surgery and packing."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import mlp, problem, same, state
from torch import Tensor, nn

from oblivio import methods, terms
from oblivio.core import seeds
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.grads import Grads, top
from oblivio.core.opt import Opt, adam, sgd
from oblivio.core.part import Part, walk
from oblivio.core.plan import Cycle, keep, restore
from oblivio.core.problem import Problem
from oblivio.core.run import Run, pack, unpack
from oblivio.core.surgery import operate, replay, surgery
from oblivio.core.where import How, Names, Selection, Where, as_where, matches
from oblivio.edits import dampen, prune
from oblivio.how import clip
from oblivio.where import saliency

FIT, KEEP = terms.fit("forget"), terms.fit("retain")


# --- where


class Given(Where):
    def __init__(self, selection: Selection) -> None:
        self.selection = selection

    def select(self, problem: Problem) -> Selection:
        return dict(self.selection)


NAMES = ["model.0.weight", "model.0.bias", "model.2.weight", "model.2.bias"]
OF = problem()


def entries(selection: Selection) -> dict[str, list[bool]]:
    """Of every entry of every weight, whether it may move."""
    out = {}
    for name, weight in OF.weights().items():
        mask = selection.get(name, torch.zeros(()))
        out[name] = (torch.ones_like(weight) if mask is None else mask.expand_as(weight)).flatten().gt(0).tolist()
    return out


@st.composite
def wheres(draw: st.DrawFn) -> Given:
    chosen: Selection = {}
    for name in NAMES:
        kind = draw(st.sampled_from(["absent", "whole", "mask"]))
        n = OF.weights()[name].numel()
        if kind != "absent":
            bits = draw(st.lists(st.booleans(), min_size=n, max_size=n)) if kind == "mask" else None
            chosen[name] = None if bits is None else torch.tensor(bits).view_as(OF.weights()[name])
    return Given(chosen)


@given(wheres(), wheres())
def test_wheres_combine_as_sets_of_entries(a: Given, b: Given) -> None:
    x, y = entries(a.selection), entries(b.selection)
    either, both, rest = (entries(w.select(OF)) for w in (a | b, a & b, ~a))
    for name in NAMES:
        assert either[name] == [p or q for p, q in zip(x[name], y[name], strict=True)]
        assert both[name] == [p and q for p, q in zip(x[name], y[name], strict=True)]
        assert rest[name] == [not p for p in x[name]]
    assert entries((~(a | b)).select(OF)) == entries((~a & ~b).select(OF))


def test_a_pattern_chooses_by_name() -> None:
    assert list(as_where("model.* !*.bias").select(OF)) == ["model.0.weight", "model.2.weight"]
    assert list((as_where("model.0.*") & "*.bias").select(OF)) == ["model.0.bias"]
    assert not matches("model.norm.weight", "model.* !model.norm*")
    with pytest.raises(BadInput, match=r"no weight matches 'head\.\*'; there are model\.0\.weight"):
        Names("head.*").select(OF)


def test_a_float_mask_scales_what_it_lets_through() -> None:
    of, half = problem(), {"model.2.bias": torch.full((4,), 0.5)}
    start = of.weights()["model.2.bias"].detach().clone()
    ends = []
    for where in (Given(half), Names("model.2.bias")):
        other = Run(Descent(KEEP, where=where, opt=sgd(0.1), steps=1), of.copy()).go()
        ends.append(other.weights()["model.2.bias"].detach() - start)
    torch.testing.assert_close(ends[0], 0.5 * ends[1])


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.floats(0, 1), st.integers(1, 39))
def test_top_takes_an_exact_count_and_ties_in_order(values: list[int], fraction: float, cut: int) -> None:
    flat = torch.tensor(values, dtype=torch.float32)
    chosen = torch.cat(list(top({"a": flat[:cut], "b": flat[cut:]}, fraction).values()))
    ranked = sorted(range(len(values)), key=lambda i: -values[i])  # stable, so ties stay in order
    assert chosen.nonzero().flatten().tolist() == sorted(ranked[: int(fraction * len(values))])


def test_a_saliency_mask_has_the_share_asked_for_and_the_largest_gradients() -> None:
    of = problem()
    mask = saliency(FIT, keep=0.25)
    mask.prepare(of)
    size = torch.cat([g.abs().flatten() for g in of.gradient(FIT).values()])
    chosen = torch.cat([m.flatten() for m in mask.select(of).values() if m is not None])
    assert int(chosen.sum()) == int(0.25 * len(size))
    assert float(size[chosen].min()) >= float(size[~chosen].max())


# --- seeds


def test_seeds_are_fixed_numbers() -> None:
    """They are in every saved run: these must never change."""
    assert seeds.mix() == 0x9E3779B97F4A7C15 >> 1
    assert (seeds.mix(0), seeds.mix(7, 1, "plan", 3)) == (7795324965117060851, 8565122012842159163)


@given(st.lists(st.one_of(st.integers(-(2**40), 2**40), st.text(min_size=1, max_size=5)), max_size=4))
def test_a_seed_depends_on_every_key_and_on_their_order(keys: list[int | str]) -> None:
    seed = seeds.mix(*keys)
    assert seed == seeds.mix(*keys)
    assert 0 <= seed < 2**63
    assert len({seed, seeds.mix(*keys, 0), seeds.mix(*keys, 1)}) == 3
    if len(set(map(str, keys))) == len(keys) > 1:
        assert seed != seeds.mix(*keys[::-1])


def test_neighbouring_seeds_give_unlike_draws() -> None:
    draws = torch.stack([torch.randn(500, generator=seeds.generator(i)) for i in range(20)])
    assert float((torch.corrcoef(draws) - torch.eye(20)).abs().max()) < 0.2


# --- optimisers


def pushed(opt: Opt, weights: Grads, times: int = 1) -> None:
    opt.open(weights)
    for _ in range(times):
        opt.step({k: torch.ones_like(w) for k, w in weights.items()}, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [lambda: sgd(0.1, 0.9), lambda: adam(0.1)])
def test_moments_survive_weights_that_leave_and_come_back(make: object) -> None:
    usual, parted = make(), make()  # type: ignore[operator]
    a, b = ({"x": nn.Parameter(torch.zeros(2)), "y": nn.Parameter(torch.zeros(2))} for _ in range(2))
    pushed(usual, a, 2)
    pushed(parted, b)
    pushed(parted, {"x": b["x"], "z": nn.Parameter(torch.zeros(3))})  # y leaves, z joins
    pushed(parted, {"y": b["y"]})
    assert torch.equal(a["x"], b["x"])
    assert torch.equal(a["y"], b["y"])


def test_moments_of_reset_entries_can_be_forgotten() -> None:
    opt, w = adam(0.1), {"x": nn.Parameter(torch.zeros(3))}
    pushed(opt, w, 2)
    opt.clear("x", torch.tensor([1]))
    assert (opt.save()["x"]["exp_avg"] == 0).tolist() == [False, True, False]


def test_stages_with_the_same_optimiser_share_it_and_others_start_afresh() -> None:
    one, two = adam(1e-3), adam(1e-3)
    plan = Descent(KEEP, opt=one, steps=3) >> Descent(FIT, opt=two, steps=1) >> Descent(FIT, opt=one, steps=2)
    run = Run(plan, problem())
    run.go()
    counts = [int(s.opt.save()["model.0.bias"]["step"]) for s in run.plan.stages]  # type: ignore[attr-defined]
    assert counts == [5, 1, 5]


def test_a_schedule_scales_the_rate_over_the_stage() -> None:
    rates: list[float] = []

    def watch(run: Run, stage: Descent, step: object) -> None:
        rates.append(stage.opt._torch.param_groups[0]["lr"])

    Run(Descent(KEEP, opt=sgd(0.1, schedule=lambda s: 1 - s.progress), steps=4), problem(), watch=[watch]).go()
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])


# --- plans


def test_a_plan_is_printed_as_its_equation() -> None:
    loss = terms.npo("forget", beta=0.2) + KEEP
    descent = Descent(loss, saliency(FIT, 0.5), clip(1), adam(0.01), over="forget", epochs=3)
    assert repr(prune(rate=0.9) >> descent) == (
        "prune(rate=0.9) >> Descent(npo('forget', beta=0.2) + fit('retain'), where=saliency(fit('forget'), keep=0.5), "
        "how=[clip(1)], adam(0.01, betas=(0.9, 0.999)), over=forget, epochs=3, batch=64)"
    )
    assert repr(Cycle(prune(), prune(0.5), rounds=4)) == "Cycle(prune(rate=0.95), prune(rate=0.5), rounds=4)"


def test_a_part_without_words_of_its_own_prints_its_settings() -> None:
    class Pull(How):
        def __init__(self, by: float, towards: str) -> None:
            self.by, self.towards, self._seen = by, towards, object()

    assert repr(Pull(0.5, "start")) == "Pull(by=0.5, towards='start')"


def test_but_changes_a_copy() -> None:
    plan = prune() >> Descent(FIT + KEEP, epochs=1, over="forget")
    before = repr(plan)
    other = plan.but(loss=lambda t: t.map("forget", terms.sam), where="*.bias", how=clip(2.0))
    assert repr(plan) == before
    changed = other.stages[1]  # type: ignore[attr-defined]
    assert repr(changed.loss) == "sam(term=fit('forget'), rho=0.05) + fit('retain')"
    assert repr(changed.where) == "('model.*' & '*.bias')"
    assert repr(changed.but(loss=KEEP, how=[clip(1.0)]).how) == "[clip(2), clip(1)]"
    with pytest.raises(BadInput, match="without one"):
        dampen().but(where="*.bias")


def test_stages_in_order_are_one_plan() -> None:
    a, b, c = (Descent(FIT, steps=n) for n in (1, 2, 3))
    assert repr((a >> b) >> c) == repr(a >> (b >> c))
    assert Cycle(a >> b, c, rounds=1).stages == [a, b, c]


def test_a_descent_says_how_long_and_over_what() -> None:
    with pytest.raises(BadInput, match="either epochs= or steps="):
        Descent(FIT)
    with pytest.raises(BadInput, match="over="):
        Run(Descent(FIT + KEEP, epochs=1), problem()).go()
    with pytest.raises(BadInput, match="chooses no weight"):
        Run(Descent(KEEP, where=Given({"model.2.bias": torch.zeros(4)}), steps=1), problem()).go()


def test_every_part_has_one_place_and_a_shared_one_its_first() -> None:
    shared = clip(1.0)
    plan = Descent(FIT, how=shared, steps=1) >> Descent(KEEP, how=shared, steps=1)
    places = dict(walk(plan, "plan"))
    assert [path for path, part in places.items() if part is shared] == ["plan/stages.0/how.0"]
    run = Run(plan, problem())
    assert not any(isinstance(p, How) for p in run.plan.stages[1].own)


def test_hooks_are_called_in_order() -> None:
    heard: list[str] = []

    class Ear(How):
        def prepare(self, problem: Problem) -> None:
            heard.append("prepare")

        def before(self, step: object) -> None:
            heard.append("before")

        def __call__(self, grads: Grads, step: object) -> Grads:
            heard.append("how")
            return grads

        def after(self, step: object) -> None:
            heard.append("after")

        def consolidate(self, problem: Problem) -> None:
            heard.append("consolidate")

        def __deepcopy__(self, memo: object) -> Ear:
            return self

    Run(Descent(KEEP, how=Ear(), steps=2), problem()).go()
    assert heard == ["prepare", *["before", "how", "after"] * 2, "consolidate"]


def test_snapshots_are_kept_and_restored() -> None:
    of = problem()
    start = state(of)
    Run(keep("before") >> Descent(KEEP, steps=3) >> restore("before"), of).go()
    assert same(state(of), start)


# --- surgery


@surgery
def add_layer(nets: dict[str, nn.Module], *, width: int) -> None:
    """One more linear layer at the end."""
    nets["model"].append(nn.Linear(4, width))


def not_registered(nets: dict[str, nn.Module]) -> None:
    """No surgery."""


def test_a_journal_rebuilds_the_structure() -> None:
    of, again = problem(), problem()
    of.operate(add_layer, width=3)
    assert of.journal == [{"op": f"{__name__}:add_layer", "args": {"width": 3}}]
    replay(again.nets, json.loads(json.dumps(of.journal)))
    assert repr(again.model) == repr(of.model)


def test_structure_changes_only_by_registered_functions_with_json_arguments() -> None:
    of = problem()
    with pytest.raises(BadInput, match="no registered surgery"):
        of.operate(not_registered)
    with pytest.raises(BadInput, match="not registered here"):
        replay(of.nets, [{"op": "os:system", "args": {"command": "true"}}])
    with pytest.raises(TypeError, match="JSON"):
        operate(of.nets, of.journal, add_layer, width=torch.ones(1))
    assert of.journal == []
    assert repr(of.model) == repr(mlp())


# --- packing

leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=3),
                   st.integers(0, 3).map(lambda n: torch.arange(n)))  # fmt: skip
words = st.text(alphabet="a/#1", max_size=3)
states = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(words, v, max_size=3), max_leaves=12)


def alike(a: object, b: object) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(alike, a, b))
    return type(a) is type(b) and a == b


@given(states)
def test_packing_and_unpacking_gives_the_state_back(value: object) -> None:
    tensors: dict[str, Tensor] = {}
    assert alike(unpack(json.loads(json.dumps(pack(value, "", tensors))), tensors), value)


@pytest.mark.parametrize("value", [{1: 2}, {"a": object()}, [{"b": {1, 2}}]])
def test_what_cannot_be_saved_is_refused_with_its_place(value: object) -> None:
    with pytest.raises(TypeError, match="state at "):
        pack(value, "here", {})


def test_a_state_that_is_handed_out_can_be_taken_back() -> None:
    part = Part()
    part.state["a"] = 1
    part.load(part.save())
    assert part.state == {"a": 1}


# --- settings


@pytest.mark.parametrize("name", [n for n in methods.names if "lr" in methods.spec(n).settings])
def test_a_setting_is_checked_by_name_and_value(name: str) -> None:
    with pytest.raises(BadInput, match="did you mean 'lr'"):
        getattr(methods, name)(lrr=0.1)
    with pytest.raises(BadInput, match=r"lr = -1"):
        getattr(methods, name)(lr=-1)
