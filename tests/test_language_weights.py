"""Which weights of a language model move, how far, and what is in them: pieces, RMU, isolation, tracing, concepts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from oblivio import methods
from oblivio.audits.language import concepts
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adamw
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.step import Step
from oblivio.edits.ablate import ablate, columns
from oblivio.methods.pieces import ama, hft, lines, wagle
from oblivio.methods.pieces._depth import BEFORE, depths
from oblivio.methods.unlearning.language import _tracing, knowledge_isolation, rmu
from oblivio.networks.language import blocks, gpt2, llama, mlp_outputs
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import CausalLM
from oblivio.terms import fit

WORDS = 20


def small(layers: int = 2, seed: int = 0, **config: Any) -> nn.Module:
    return llama(WORDS, layers=layers, width=8, heads=2, ff=12, context=16, seed=seed, **config).eval()


def rows(n: int = 6, seed: int = 0) -> Tokens:
    """A prompt of three tokens, an answer of one, and an end; every other row is a token longer."""
    g = torch.Generator().manual_seed(seed)
    drawn = torch.randint(2, WORDS, (n, 5), generator=g).tolist()
    return Tokens(
        [[*row[: 4 + i % 2], 1] for i, row in enumerate(drawn)], [3] * n, ids=list(range(seed * n, seed * n + n))
    )


def problem(model: nn.Module | None = None, **sources: Any) -> Problem:
    given_ = {"forget": rows(seed=1), "retain": rows(8, seed=2), **sources}
    return Problem(model or small(), task=CausalLM(), **given_)


def training(steps: int = 5, on: str = "retain", wd: float = 0.0, lr: float = 0.01) -> Stage:
    return Descent(fit(on), opt=adamw(lr, wd=wd), steps=steps, batch=4)


def weights(of: Problem | nn.Module) -> dict[str, Tensor]:
    model = of.model if isinstance(of, Problem) else of
    return {n: w.detach().clone() for n, w in model.named_parameters()}


def after(plan: Stage, given_: Problem | None = None) -> Problem:
    return Run(plan, (given_ or problem()).copy()).go()


# --- depth


def test_a_block_is_not_taken_for_another_whose_number_begins_alike() -> None:
    found = depths(small(layers=12))
    assert found["model.layers.1.mlp.up_proj.weight"] == 1
    assert found["model.layers.11.mlp.up_proj.weight"] == 11
    assert found["model.embed_tokens.weight"] == BEFORE
    assert found["model.norm.weight"] == found["lm_head.weight"] == 12


# --- LiNeS


def test_lines_scales_by_depth_and_leaves_the_last_block_as_it_is() -> None:
    given_ = problem(small(layers=3))
    start, trained = weights(given_), weights(after(training(), given_))
    scaled = weights(after(methods.lines(alpha=0.4)(training()), given_))
    for name, depth in depths(given_.model).items():
        share = 0.4 if depth == BEFORE else 0.4 + 0.6 * min(depth, 2) / 2
        expected = start[name] + share * (trained[name] - start[name])
        assert torch.allclose(scaled[name], expected, atol=1e-6), name


def test_at_its_ends_lines_gives_both_models_to_the_bit() -> None:
    given_ = problem()
    start, trained = weights(given_), weights(after(training(), given_))
    whole = weights(after(methods.lines(alpha=1.0, beta=0.0)(training()), given_))
    none = weights(after(methods.lines(alpha=0.0, beta=0.0)(training()), given_))
    assert all(torch.equal(whole[n], trained[n]) and torch.equal(none[n], start[n]) for n in start)


def test_the_published_edit_scales_the_head_as_the_first_block() -> None:
    share = lines.shares(problem(small(layers=3)), 0.25, 0.75, "alpha")
    assert share["model.lm_head.weight"] == share["model.model.embed_tokens.weight"] == 0.25
    assert share["model.model.layers.1.mlp.up_proj.weight"] == 0.625


def test_without_alpha_lines_takes_the_one_that_keeps_most_of_both() -> None:
    given_ = problem(valid=rows(4, seed=3), control=rows(4, seed=4))
    start, trained = weights(given_), weights(after(training(), given_))
    scores = {1.0: (0.8, 0.2), 0.0: (0.1, 0.9)}  # figures of valid and control; every alpha between keeps both

    class Scored(Problem):
        def score(self, on: Any) -> float:
            name = "model.layers.0.mlp.up_proj.weight"
            ends = [torch.equal(weights(self)[name], other[name]) for other in (start, trained)]
            return (scores[0.0] if ends[0] else scores[1.0] if ends[1] else (0.7, 0.8))[on == "control"]

    given_.__class__ = Scored
    chosen = weights(after(methods.lines(alpha=None)(training()), given_))
    expected = weights(after(methods.lines(alpha=0.1)(training()), given_))  # 2 * 0.7 / 0.8 + 0.8 / 0.9, the first such
    assert all(torch.equal(chosen[n], expected[n]) for n in chosen)


def test_of_an_adapter_the_second_factor_alone_is_scaled() -> None:
    from oblivio.where import lora

    given_ = problem(small(layers=3))
    plan = training().but(where=lora(r=2))
    trained, scaled = weights(after(plan, given_)), weights(after(methods.lines(alpha=0.0, beta=0.5)(plan), given_))
    name = "model.layers.2.mlp.up_proj.{}.default.weight"
    assert torch.equal(scaled[name.format("lora_A")], trained[name.format("lora_A")])
    assert torch.allclose(scaled[name.format("lora_B")], 0.5 * trained[name.format("lora_B")])


# --- half fine-tuning


def test_half_of_each_blocks_matrices_are_held() -> None:
    given_ = problem(small(layers=4))
    held = hft.draw(hft.units(given_), torch.Generator().manual_seed(0))
    names = [unit.names[0] for unit in held]
    feed_forward = []
    for block in blocks(given_.model):
        mine = [n for n in names if n.startswith(f"model.{block}.")]
        assert sum("self_attn" in n for n in mine) == 2  # of q, k, v and o
        assert sum("layernorm" in n for n in mine) == 1  # of two
        feed_forward.append(sum("mlp" in n for n in mine))  # of up, gate and down
    assert sorted(feed_forward) == [1, 1, 2, 2]


def test_what_is_held_keeps_its_bits_under_decay_and_the_rest_moves() -> None:
    given_ = problem(small(layers=4))
    chosen = hft.half().select(given_)
    start, end = weights(given_), weights(after(methods.hft()(training(wd=0.1)), given_))
    assert {n for n in start if not torch.equal(start[n], end[n])} == {n.removeprefix("model.") for n in chosen}
    assert "model.lm_head.weight" in chosen
    assert "model.model.embed_tokens.weight" in chosen


def test_another_half_is_drawn_at_another_turn() -> None:
    given_ = problem(small(layers=4))
    first = hft.half().select(given_).keys()
    assert hft.half().select(given_).keys() == first
    given_.turn = 1
    assert hft.half().select(given_).keys() != first


def test_a_fused_matrix_is_held_by_slices() -> None:
    given_ = Problem(gpt2(WORDS, layers=2, width=8, heads=2, context=16), task=CausalLM(), retain=rows(8))
    units = hft.units(given_)["attention"][0]
    assert [unit.part for unit in units] == [0, 1, 2, None]  # query, key and value, then the output
    name = units[0].names[0]
    mask = hft._mask(name, given_.weights(name)[name], [0, 2])
    assert mask.sum(0).tolist() == [0] * 8 + [8] * 8 + [0] * 8  # the columns of the key are trained
    start, end = weights(given_), weights(after(methods.hft()(training(wd=0.1)), given_))
    for name, mask in hft.half().select(given_).items():
        short = name.removeprefix("model.")
        if mask is not None:
            assert torch.equal(start[short][~mask], end[short][~mask])
            assert not torch.equal(start[short], end[short])


def test_a_matrix_that_mixes_query_key_and_value_is_refused() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.ModuleDict({"query_key_value": nn.Linear(4, 12)})

    model = nn.ModuleDict({"layers": nn.ModuleList([Block(), Block()])})
    with pytest.raises(BadInput, match="layers.0.attention.query_key_value.weight holds query, key and value"):
        hft.half().select(Problem(model, task=CausalLM(), retain=rows(8)))


# --- WAGLE


def test_scores_weigh_a_weight_against_what_retained_rows_need() -> None:
    found = wagle.scores(
        torch.tensor([1.0, -2.0, 0.5]), torch.tensor([2.0, 1.0, -4.0]), torch.tensor([0.5, 0.0, 0.1]), 0.5
    )
    assert found.tolist() == pytest.approx([0.0, 2.0, 1.2])  # |(1 - 1) 2|, |-2 * 1|, |(0.5 - 0.2) * -4|


def test_mu_makes_both_summands_equal_in_their_medians() -> None:
    given_ = problem()
    where = wagle.attribution(["forget"], "retain", 0.2)
    where.prepare(given_)
    gradient = given_.gradient(fit("retain"))
    values = torch.cat([g.flatten().abs() for g in gradient.values()])
    sizes = torch.cat([w.detach().flatten().abs() for n, w in given_.weights().items() if n in gradient])
    assert float(values.median()) / where.state["mu"] == pytest.approx(float(sizes.median()), rel=1e-5)
    assert sum(int(m.sum()) for m in where.state["mask"].values()) == int(0.2 * len(sizes))


def test_outside_its_mask_wagle_keeps_bits_under_decay() -> None:
    given_ = problem()
    where = wagle.attribution(["forget"], "retain", 0.2, mu=0.01)
    where.prepare(given_)
    plan = Descent(fit("retain") - fit("forget"), opt=adamw(0.01, wd=0.1), steps=4, batch=4)
    start, end = weights(given_), weights(after(methods.wagle(rho=0.2)(plan), given_))
    for name, mask in where.select(given_).items():
        short = name.removeprefix("model.")
        assert mask is not None
        assert torch.equal(start[short][~mask], end[short][~mask])


def test_wagle_needs_rows_to_forget() -> None:
    with pytest.raises(BadInput, match="reads no rows to forget"):
        methods.wagle()(training())


# --- AMA


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-6, 6), min_size=1, max_size=5), st.floats(0.05, 0.95))
def test_ratios_have_the_mean_that_was_asked_for(s: list[float], a: float) -> None:
    share = ama.ratios(torch.tensor(s), a, 0.2)
    assert float(share.mean()) == pytest.approx(a, rel=1e-4)
    order = torch.tensor(s).argsort()
    assert bool((share[order].diff() >= -1e-6).all())


def test_without_epochs_ama_is_uniform_averaging() -> None:
    given_ = problem()
    start, trained = weights(given_), weights(after(training(), given_))
    done = after(methods.ama(a=0.3, epochs=0)(training()), given_)
    average = weights(done)
    assert all(torch.allclose(average[n], 0.3 * start[n] + 0.7 * trained[n], atol=1e-6) for n in start)
    assert list(done.nets) == ["model"]


def test_the_gradient_of_the_ratios_is_that_of_finite_differences() -> None:
    given_ = after(training(), problem())
    given_.keep("end")
    given_.snapshots["start"] = {n: w.detach() for n, w in problem().weights().items()}
    given_.operate(ama.add_ratios, groups=2, a=0.5)
    numbers = given_.nets.get_parameter("ratios.s")
    numbers.data = torch.tensor([0.4, -0.7])
    term = ama.averaged(fit("retain"), 0.5, 0.2) + 0.1 * ama.uneven(0.5, 0.2)
    found = given_.gradient(term, where="ratios.*")["ratios.s"]

    def loss(s: Tensor) -> float:
        numbers.data = s
        with torch.no_grad():
            step = Step(given_, "test", {}, None, train=False)
            mixed = ama.mixed(given_, ama.ratios(s, 0.5, 0.2), 0.5)
            return float(fit("retain")(step.at(mixed))) + 0.1 * float(ama.uneven(0.5, 0.2)(step))

    at = torch.tensor([0.4, -0.7])
    for i in range(2):
        up, down = at.clone(), at.clone()
        up[i], down[i] = up[i] + 0.02, down[i] - 0.02
        assert float(found[i]) == pytest.approx((loss(up) - loss(down)) / 0.04, rel=0.02, abs=1e-5)


def test_groups_are_of_consecutive_blocks_and_the_head_has_none() -> None:
    found = ama.members(small(layers=5), 2)
    assert [found[f"model.model.layers.{i}.mlp.up_proj.weight"] for i in range(5)] == [0, 0, 0, 1, 1]
    assert found["model.model.embed_tokens.weight"] == 0
    assert found["model.lm_head.weight"] is None


# --- dual process


def watched(piece: Any, steps: int) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """The embeddings and what the optimiser knows of them after each step."""
    seen = []
    name = "model.model.embed_tokens.weight"

    def look(run: Run, stage: Stage, step: Step) -> None:
        assert step.opt is not None
        seen.append((step.weights[name].detach().clone(), {k: v.clone() for k, v in step.opt.save()[name].items()}))

    Run(piece(training(steps)), problem().copy(), watch=[look]).go()
    return seen


def test_embeddings_are_drawn_anew_and_their_moments_cleared() -> None:
    seen = watched(methods.dual_process(every=3, until=7, sd=0.5), 9)
    moments = [float(known["exp_avg"].abs().max()) for _, known in seen]
    counts = [float(known["step"]) for _, known in seen]
    assert [m == 0 for m in moments] == [False, False, True, False, False, True, False, False, False]
    assert counts == [1, 2, 0, 1, 2, 0, 1, 2, 3]
    assert [float(known["exp_avg_sq"].abs().max()) == 0 for _, known in seen][2]
    assert float(seen[2][0].std()) == pytest.approx(0.5, rel=0.15)
    assert not torch.allclose(seen[2][0], seen[5][0])


def test_embeddings_keep_the_deviation_they_began_with() -> None:
    begun = float(problem().weights()["model.model.embed_tokens.weight"].detach().std())
    seen = watched(methods.dual_process(every=2, until=None), 2)
    assert float(seen[-1][0].std()) == pytest.approx(begun, rel=0.2)


def test_entries_that_may_not_move_are_not_drawn_anew() -> None:
    given_ = problem()
    plan = methods.dual_process(every=1, until=None)(training(2)).but(where="model.model.layers.*")
    assert torch.equal(
        weights(given_)["model.embed_tokens.weight"], weights(after(plan, given_))["model.embed_tokens.weight"]
    )


# --- RMU


def test_rmu_measures_where_answers_are_predicted() -> None:
    """Of prompts of 3 tokens the answer is told at tokens 2, 3 (and 4, where it is longer); never at the padding."""
    given_ = problem(small(layers=3))
    term = rmu.misdirect("forget", 1, 2.0)
    term.prepare(given_)
    reader, target = term.state["reader"], term.state["target"]
    assert reader == "model.model.layers.2"
    states: list[Tensor] = []
    handle = given_.nets.get_submodule(reader).register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    step = Step(given_, "test", {}, None, taps=(reader,), train=False)
    value = term(step)
    handle.remove()
    h = states[0]
    each = [((h[i, 2 : 4 + i % 2] - target) ** 2).mean(1).mean() for i in range(6)]
    assert float(value.detach()) == pytest.approx(float(torch.stack(each).mean().detach()), rel=1e-5)
    lengths = [h[i, 2 : 4 + i % 2].norm(dim=1).mean() for i in range(6)]
    mean = float(torch.stack(lengths).mean().detach())
    assert term.state["length"] == pytest.approx(mean, rel=1e-5)
    assert float(target.norm()) == pytest.approx(2 * mean, rel=1e-5)
    assert bool((target > 0).all())


def test_rmu_moves_three_matrices_and_no_other() -> None:
    given_ = problem(small(layers=5))
    start, end = weights(given_), weights(after(methods.rmu(layer=3, epochs=1), given_))
    assert [n for n in start if not torch.equal(start[n], end[n])] == mlp_outputs(given_.model)[1:4]


def test_retained_states_are_held_to_those_of_the_start() -> None:
    given_ = problem(small(layers=3))
    given_.keep("start")
    term = rmu.hold("retain", 1)
    term.prepare(given_)
    step = Step(given_, "test", {}, None, taps=(term.state["reader"],), train=False)
    assert float(term(step).detach()) == 0
    given_.move()
    with torch.no_grad():
        given_.weights()["model.model.layers.0.mlp.down_proj.weight"].mul_(2)
    assert float(term(Step(given_, "test", {}, None, taps=(term.state["reader"],), train=False)).detach()) > 0


def test_rmu_refuses_the_last_block() -> None:
    with pytest.raises(BadInput, match="layer 2 of 3; it must be from 0 to 1"):
        after(methods.rmu(layer=2), problem(small(layers=3)))


# --- knowledge isolation


@pytest.mark.parametrize(
    ("d", "m"), [(-0.1, 1.2), (0.0, 1.2), (0.2, 1.2), (0.5, 1.5), (0.8, 2.1), (1.0, 2.3), (99, 2.3)]
)
def test_the_retain_weight_follows_the_excess_loss(d: float, m: float) -> None:
    assert knowledge_isolation.weight(d, 1.2, 2.3) == pytest.approx(
        m
    )  # 0.3 * 6^0.5 + 0.8 = 1.53, 0.3 * 6^0.8 + 0.8 = 2.06


def test_the_weight_is_constant_in_the_first_epoch_and_then_compares_with_its_mean() -> None:
    given_ = problem()
    plan = methods.knowledge_isolation(epochs=3, batch=2, lr=0.05)  # 6 forgotten rows: 3 steps an epoch
    losses, used, found = [], [], {}

    def look(run: Run, stage: Any, step: Step) -> None:
        part = next(p for p in run.parts.values() if isinstance(p, knowledge_isolation.Adaptive))
        losses.append(float(step.task.each(step.seen("retain"), step.batch("retain")).mean()))
        used.append(part(step))
        found.update(part.state)

    Run(plan, given_.copy(), watch=[look]).go()
    level = sum(losses[:3]) / 3
    assert used[:3] == [1.2] * 3
    assert found["sum"] / found["count"] == pytest.approx(level)
    assert used[3:] == [knowledge_isolation.weight(loss - level, 1.2, 2.3) for loss in losses[3:]]


def test_only_the_chosen_feed_forward_networks_move() -> None:
    given_ = problem(small(layers=4))
    start = weights(given_)
    end = weights(after(methods.knowledge_isolation(epochs=1), given_))
    moved = [n for n in start if not torch.equal(start[n], end[n])]
    assert {".".join(n.split(".")[:4]) for n in moved} == {"model.layers.0.mlp", "model.layers.1.mlp"}
    assert len(moved) == 6


# --- tracing


SUBJECTS = [(2, 3), (2, 3)]  # the last token of the prompt


def test_effects_are_those_of_putting_back_one_layer_at_one_token() -> None:
    tokens, model = Tokens([[3, 5, 7, 9, 1], [4, 6, 8, 2, 1]], [3, 3]), small(initializer_range=0.5)
    effects = _tracing.trace(model, tokens, SUBJECTS, kind="hidden", samples=3, seed=1)
    assert effects.shape == (2, 5, 2)
    assert bool(effects[:, 3:].isnan().all())
    assert torch.allclose(effects[:, :2], torch.zeros(2, 2, 2), atol=1e-7)  # no noise reaches the tokens before
    assert bool((effects[:, 2, 1] != 0).all())
    assert _tracing.at_last(effects, SUBJECTS).tolist() == pytest.approx(effects[:, 2].mean(0).tolist())


@pytest.mark.parametrize("kind", ["hidden", "mlp", "attention"])
def test_what_is_put_back_before_the_answer_undoes_the_noise(kind: _tracing.Kind) -> None:
    """Only the end is asked for, and only the token before it is noisy: its last hidden state is all there is."""
    tokens, model = Tokens([[3, 5, 7, 1], [4, 6, 8, 1]], [3, 3]), small(initializer_range=0.5)
    tracer = _tracing._Tracer(model, tokens, SUBJECTS, kind)
    with torch.no_grad():
        clean, states = tracer.run()
        noise = 3.0 * tracer.noise(torch.Generator().manual_seed(0))
        broken, _ = tracer.run(noise)
        back, _ = tracer.run(noise, {1: states[1]}, at=2)
    assert not torch.allclose(broken, clean)
    assert torch.allclose(back, clean, atol=1e-6) == (kind == "hidden")  # the others only add to what is noisy
    assert not torch.allclose(back, broken)


def test_subjects_are_found_in_their_prompts() -> None:
    tokens = Tokens([[9, 3, 4, 3, 4, 5, 1], [3, 4, 9, 5, 1]], [5, 3])
    assert _tracing.spans(tokens, [[3, 4], [3, 4]]) == [(3, 5), (0, 2)]
    with pytest.raises(BadInput, match="does not hold the subject's tokens"):
        _tracing.spans(tokens, [[3, 4], [5]])


# --- concept vectors


def test_value_vectors_are_columns_of_the_last_matrix() -> None:
    model = small()
    weight = model.get_parameter("model.layers.1.mlp.down_proj.weight")
    vectors = concepts.value_vectors(model)
    assert [tuple(v.shape) for v in vectors] == [(12, 8), (12, 8)]
    assert torch.equal(vectors[1][3], weight[:, 3])
    other = gpt2(WORDS, layers=1, width=8, heads=2, context=16)
    assert torch.equal(concepts.value_vectors(other)[0][3], other.get_parameter("transformer.h.0.mlp.c_proj.weight")[3])


def test_the_projection_has_the_last_norm_in_it() -> None:
    model = small()
    with torch.no_grad():
        model.get_parameter("model.norm.weight").copy_(torch.arange(8.0))
    v = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    expected = (v * torch.arange(8.0)) @ model.get_parameter("lm_head.weight").T
    assert torch.allclose(concepts.projection(model, v), expected)
    assert torch.equal(concepts.top_tokens(model, v, 3), expected.topk(3, dim=1).indices)
    assert concepts.top_tokens(model, v).shape == (2, WORDS)
    other = gpt2(WORDS, layers=1, width=8, heads=2, context=16)
    norm = concepts.final_norm(other)
    assert norm is not None
    assert torch.equal(norm, other.get_parameter("transformer.ln_f.weight"))


def test_likeness_is_the_share_of_a_text_that_tokens_cover() -> None:
    found = concepts.likeness(torch.tensor([[0, 1], [2, 5]]), {1: 3.0, 2: 1.0, 7: 4.0})
    assert found.tolist() == pytest.approx([3 / 8, 1 / 8])


def test_traces_of_a_vector_that_was_turned_round() -> None:
    model, other = small(), small()
    with torch.no_grad():
        other.get_parameter("model.layers.0.mlp.down_proj.weight")[:, 2].mul_(-1)
    wanted = concepts.top_tokens(model, concepts.value_vectors(model)[0][2:3], 5)[0].tolist()
    traces = concepts.compare(model, other, [(0, 2), (1, 2)], k=5, concept=wanted[:2])
    assert traces.cosine.tolist() == pytest.approx([-1.0, 1.0])
    assert traces.jaccard.tolist() == pytest.approx([0.0, 1.0])  # the five lowest of 20 are none of the five highest
    length = float(concepts.value_vectors(model)[0][2].norm())
    assert traces.distance.tolist() == pytest.approx([2 * length, 0.0], abs=1e-6)
    assert float(traces.kept[0]) == 0
    with pytest.raises(BadInput, match="no vector 12 in block 0"):
        concepts.compare(model, other, [(0, 12)])


def test_drops_are_those_of_the_model_without_the_vector_which_stays_as_it_was() -> None:
    model, tokens = small(initializer_range=0.5), rows()
    before = weights(model)
    found = concepts.drops(model, tokens, [(0, 1), (1, 4)])
    assert all(torch.equal(before[n], w) for n, w in weights(model).items())
    whole = concepts._probability(model, tokens)
    with torch.no_grad():
        columns(model, 1)[4].zero_()
    assert float(found[1]) == pytest.approx(whole - concepts._probability(model, tokens), abs=1e-6)
    assert math.isfinite(float(concepts.drops(model, tokens, [(0, 1)], noise=0.1)[0]))


def test_rank_puts_the_vector_first_that_only_the_concept_needs() -> None:
    model, concept, others = small(layers=1, initializer_range=0.5), rows(4, seed=5), rows(4, seed=6)
    order = concepts.rank(model, concept, others)
    assert len(set(order)) == 12
    apart = concepts.drops(model, concept, order) - concepts.drops(model, others, order)
    assert apart.tolist() == sorted(apart.tolist(), reverse=True)


def test_ablate_takes_out_these_vectors_alone() -> None:
    given_ = problem()
    start, end = weights(given_), weights(after(ablate([(1, 3)]), given_))
    name = "model.layers.1.mlp.down_proj.weight"
    assert [n for n in start if not torch.equal(start[n], end[n])] == [name]
    assert float(end[name][:, 3].abs().max()) == 0
    noisy = weights(after(ablate([(0, 0)], noise=0.1), given_))["model.layers.0.mlp.down_proj.weight"]
    change = noisy - start["model.layers.0.mlp.down_proj.weight"]
    assert float(change[:, 0].std()) == pytest.approx(0.1, rel=0.7)
    assert float(change[:, 1:].abs().max()) == 0


def test_dual_process_is_refused_where_there_is_no_token_embedding() -> None:
    plan = methods.dual_process()(Descent(fit("train"), steps=1))
    with pytest.raises(BadInput, match="names no token embedding"):
        Run(plan, Problem(nn.Linear(2, 2), train=(torch.randn(4, 2), torch.tensor([0, 1, 0, 1])))).go()
