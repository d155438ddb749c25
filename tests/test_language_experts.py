"""Experts of sparse language models: attribution, the piece that stays within one of them, and how routing drifts."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from oblivio import methods, terms
from oblivio.audits.language.experts import _shared, overlap
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adamw
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.methods.pieces.uoe import router_anchor
from oblivio.networks.language import llama, mixtral, routers
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import CausalLM
from oblivio.where.experts import attribution, contrast, experts, highest, router_modules, scores

GATE = "model.model.layers.{}.mlp.gate"
EXPERTS = "model.model.layers.{}.mlp.experts.{}"


def rows(low: int, high: int, n: int = 10) -> Tokens:
    """Sequences of tokens from a range, of different lengths, two tokens of prompt."""
    g = torch.Generator().manual_seed(low)
    drawn = [[*torch.randint(low, high, (3 + i % 3,), generator=g).tolist(), 1] for i in range(n)]
    return Tokens(drawn, [2] * n, pad=0)


@cache
def sparse() -> nn.Module:
    """Two blocks of four experts, routed apart: large router weights."""
    model = mixtral(30, layers=2, width=16, heads=2, ff=8, experts=4, context=16, seed=1).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("gate.weight"):
                weight.mul_(20)
    return model


def problem(model: nn.Module | None = None, **sources: Any) -> Problem:
    given = {"forget": rows(3, 6), "retain": rows(16, 30, 14), **sources}
    return Problem(model or sparse(), task=CausalLM(), **given)


def test_scores_are_the_softmax_of_what_a_router_gives() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, torch.tensor(3.0).log()]])
    expected = [[[0.5, 0.5], [0.25, 0.75]]]
    assert torch.allclose(scores(logits, 1), torch.tensor(expected))
    assert torch.allclose(scores((logits, None, None), 1), torch.tensor(expected))
    assert scores(logits, 2).shape == (2, 1, 2)


def test_attribution_is_the_mean_over_what_predicts_answers() -> None:
    given = problem()
    found = attribution(given, "forget")
    assert list(found) == [GATE.format(0), GATE.format(1)]
    model, source = sparse(), given.source("forget")
    each = []
    for i in range(len(source)):
        tokens, prompt = source.sequence(i)  # type: ignore[attr-defined]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens]), output_router_logits=True).router_logits[1]
        each.append(logits.softmax(1)[prompt - 1 : -1].mean(0))
    assert torch.allclose(found[GATE.format(1)], torch.stack(each).mean(0), atol=1e-6)


def test_contrast_and_target_by_hand() -> None:
    one = {"a": torch.tensor([0.5, 0.5]), "b": torch.tensor([0.2, 0.8])}
    other = {"a": torch.tensor([0.4, 0.6]), "b": torch.tensor([0.5, 0.5])}
    assert contrast(one, other) == pytest.approx(0.3)
    assert contrast(one, one) == 0
    assert highest(one, 1) == {"b": [1]}
    assert highest(one, 3) == {"b": [1], "a": [0, 1]}
    with pytest.raises(BadInput, match="has 4 in all"):
        highest(one, 5)


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=4), st.data())
def test_the_chosen_score_no_less_than_the_others(routing: list[list[float]], data: st.DataObject) -> None:
    table = {str(i): torch.tensor(each) for i, each in enumerate(routing)}
    count = data.draw(st.integers(1, 3 * len(routing)))
    chosen = highest(table, count)
    inside = [float(table[n][e]) for n, some in chosen.items() for e in some]
    outside = [float(s) for n, each in table.items() for e, s in enumerate(each) if e not in chosen.get(n, [])]
    assert len(inside) == count
    assert min(inside) >= max(outside, default=0)


def test_the_selection_is_a_slice_and_the_router() -> None:
    given = problem()
    where = experts("forget", "retain", count=1)
    where.prepare(given)
    ((router, (expert,)),) = where.targets.items()
    chosen = where.select(given)
    layer = router.split(".")[3]
    assert chosen.keys() == {f"{router}.weight", *(EXPERTS.format(layer, w) for w in ("gate_up_proj", "down_proj"))}
    assert chosen[f"{router}.weight"] is None
    mask = chosen[EXPERTS.format(layer, "down_proj")]
    assert mask is not None
    assert mask.flatten(1).all(1).tolist() == [e == expert for e in range(4)]
    assert mask.flatten(1).any(1).tolist() == [e == expert for e in range(4)]


def test_all_else_keeps_its_bits() -> None:
    given = problem()
    plan = methods.uoe(M=2)(methods.grad_diff(epochs=2, lr=1e-2, optimiser="adamw", batch=5))
    run = Run(plan, given.copy())
    done = run.go()
    (where,) = {part for part in run.parts.values() if isinstance(part, experts)}
    chosen, before = where.select(given), dict(given.nets.named_parameters())
    for name, weight in done.nets.named_parameters():
        mask = chosen.get(name, torch.zeros(1, dtype=torch.bool))
        moved = weight != before[name]
        assert bool(moved.any()) == (name in chosen)
        assert mask is None or not bool((moved & ~mask).any())


def anchored(given: Problem) -> router_anchor:
    where = experts("forget", "retain")
    where.prepare(given)
    return router_anchor("forget", where)


def value(given: Problem, term: router_anchor) -> float:
    """The term over the whole source, of a Descent that does not move anything far."""
    seen: list[Tensor] = []
    plan = Descent(term, opt=adamw(1e-30, wd=0.0), steps=1, batch=None)
    Run(plan, given.copy(), watch=[lambda run, stage, step: seen.append(step.loss)]).go()  # type: ignore[arg-type]
    return float(seen[0])


def test_the_anchor_by_hand() -> None:
    given = problem()
    term = anchored(given)
    ((router, (expert,)),) = term.at.targets.items()
    source, each = given.source("forget"), []
    for i in range(len(source)):
        tokens, prompt = source.sequence(i)  # type: ignore[attr-defined]
        with torch.no_grad():
            out = sparse()(input_ids=torch.tensor([tokens]), output_router_logits=True).router_logits
        got = out[int(router.split(".")[3])].softmax(1)[prompt - 1 : -1]
        wanted = torch.zeros(4).index_fill(0, torch.tensor([expert]), 1.0)
        each.append((got - wanted).square().sum(1).mean())
    assert value(given, term) == pytest.approx(float(torch.stack(each).mean()), rel=1e-4)


def test_the_anchor_raises_the_score_of_its_target() -> None:
    given = problem()
    term = anchored(given)
    ((router, (expert,)),) = term.at.targets.items()
    done = Run(Descent(term, where=term.at, opt=adamw(1e-2, wd=0.0), steps=20, batch=None), given.copy()).go()
    before, after = (float(attribution(p, "forget")[router][expert]) for p in (given, done))
    assert after > before


def test_what_is_routed_alike_is_not_applicable() -> None:
    given = problem(retain=rows(3, 6, 20).take(range(10, 20)))
    with pytest.raises(BadInput, match="not applicable: forget and retain are routed alike"):
        Run(methods.uoe(contrast=0.5)(methods.grad_diff()), given).go()


def test_blocks_without_experts_are_passed_over() -> None:
    config = Qwen2MoeConfig(
        vocab_size=30, hidden_size=16, intermediate_size=8, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=2, moe_intermediate_size=8, shared_expert_intermediate_size=8, num_experts=4,
        num_experts_per_tok=2, mlp_only_layers=[1],
    )  # fmt: skip
    assert routers(Qwen2MoeForCausalLM(config)) == [f"model.layers.{i}.mlp.gate.weight" for i in (0, 2)]


def test_a_dense_model_is_refused() -> None:
    dense = llama(30, layers=1, width=16, heads=2, ff=16, context=16)
    with pytest.raises(BadInput, match="dense"):
        Run(methods.uoe()(methods.grad_diff()), problem(dense)).go()
    with pytest.raises(BadInput, match="dense"):
        overlap(problem(dense), problem(dense), "forget", k=1)


def test_settings_are_checked() -> None:
    with pytest.raises(BadInput, match="M"):
        methods.uoe(M=0)
    with pytest.raises(BadInput, match="choose 1 or more"):
        experts("forget", "retain", count=0)


def test_experts_in_tensors_of_their_own_are_refused() -> None:
    given = problem()
    where = experts("forget", "retain")
    where.state["targets"] = {"model.model.layers.0.self_attn.q_proj": [0]}
    with pytest.raises(BadInput, match="do not lie together"):
        where.select(given)


# --- drift


def test_shared_experts_by_hand() -> None:
    one, other = torch.tensor([[9.0, 8, 1, 0], [9, 8, 1, 0]]), torch.tensor([[9.0, 0, 8, 1], [1, 0, 9, 8]])
    assert _shared(one, other, 1, 2).tolist() == [[0.5, 0.0]]
    assert _shared(one, one, 1, 3).tolist() == [[1.0, 1.0]]


def test_routing_that_stayed_overlaps_wholly() -> None:
    given = problem()
    assert overlap(given, given.copy(), "forget") == dict.fromkeys(router_modules(given), 1.0)


def test_the_overlap_falls_where_routers_change() -> None:
    given, other = problem(), problem().copy()
    with torch.no_grad():
        weight = other.weights(f"{GATE.format(1)}.weight")[f"{GATE.format(1)}.weight"]
        weight.copy_(weight.flip(0))
    found = overlap(given, other, "forget", k=1)
    assert found[GATE.format(0)] == 1
    assert found[GATE.format(1)] == 0


def test_models_of_another_form_are_not_compared() -> None:
    other = mixtral(30, layers=1, width=16, heads=2, ff=8, experts=4, context=16)
    with pytest.raises(BadInput, match="different routers"):
        overlap(problem(), problem(other), "forget")


def test_the_piece_takes_any_plan_with_a_descent() -> None:
    plan = methods.uoe(alpha=2.0)(Descent(-terms.fit("forget"), steps=1))
    assert "2 * router_anchor('forget')" in repr(plan)
    assert "experts('forget', 'retain', count=1, by='forget'" in repr(plan)
