"""Metrics of language models: every formula against a hand-worked answer of five tokens, and what must not matter."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from oblivio.audits.language import fluency, generation, knowledge, membership, memorisation, reword
from oblivio.audits.language.generation import generate
from oblivio.audits.language.responses import Responses, respond
from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.core.surgery import Wrap
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import CausalLM

EOS, VOCABULARY = 1, 11
LOGS = [-0.1, -2.0, -0.3, -4.0, -0.6]  # of five tokens: 7.0 in all, 1.4 each
HITS = [True, False, True, True, True]


def answers(*rows: Sequence[float], hits: Sequence[Sequence[bool]] | None = None, end: float = -9.0) -> Responses:
    """Responses as they come: each row closed by an end-of-text token, which no metric may look at."""
    lengths = [len(row) + 1 for row in rows]
    logs = torch.tensor([value for row in rows for value in (*row, end)])
    marks = [[True] * len(row) for row in rows] if hits is None else hits
    hit = torch.tensor([value for row in marks for value in (*row, False)])
    ends = torch.tensor([i == len(row) for row in rows for i in range(len(row) + 1)])
    entropies, variances = torch.full_like(logs, 0.5), torch.full_like(logs, 0.25)
    ids = torch.arange(len(rows)).numpy()
    return Responses(logs, hit, entropies, variances, ends, torch.tensor(lengths), ids)


def llama(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.5, bos_token_id=0, eos_token_id=EOS,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def gpt2(seed: int = 0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=64, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5,
                        bos_token_id=0, eos_token_id=EOS)  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def tokens(rows: Sequence[Sequence[int]], prompts: Sequence[int], pad: int = 0) -> Tokens:
    return Tokens([list(row) for row in rows], list(prompts), pad, ids=[f"row {i}" for i in range(len(rows))])


TEXTS = [[2, 3, 4, 5, EOS], [2, 6, 7, EOS], [2, 3, 8, 9, 10, 4, 5, EOS], [5, 4, EOS]]
PROMPTS = [2, 1, 3, 1]


# --- formulas on five tokens


def test_probability_is_the_geometric_mean_of_the_answers_tokens() -> None:
    assert float(memorisation.probability(answers(LOGS))) == pytest.approx(math.exp(-1.4), rel=1e-6)


def test_exact_memorisation_is_the_share_of_hits() -> None:
    assert float(memorisation.exact_memorisation(answers(LOGS, hits=[HITS]))) == pytest.approx(0.8)


@pytest.mark.parametrize(("hits", "strength"), [
    (HITS, 0.6),  # after the second token all are hits: 1 - 2/5
    ([True] * 5, 1.0),
    ([True] * 4 + [False], 0.0),  # k = n where the last is wrong
    ([False] * 5, 0.0),  # not 1/5, as from a loop that ends at n - 1
    ([False] * 4 + [True], 0.2),
])  # fmt: skip
def test_extraction_strength_counts_the_hits_that_close_an_answer(hits: list[bool], strength: float) -> None:
    assert float(memorisation.extraction_strength(answers(LOGS, hits=[hits]))) == pytest.approx(strength)


def test_the_end_of_a_text_enters_no_metric() -> None:
    near, far = answers(LOGS, hits=[HITS], end=0.0), answers(LOGS, hits=[HITS], end=-50.0)
    metrics = (
        memorisation.probability, memorisation.exact_memorisation, memorisation.extraction_strength, membership.loss,
        membership.min_k, membership.min_k_pp, membership.log_odds, fluency.entropy,
    )  # fmt: skip
    for metric in metrics:
        assert torch.equal(metric(near), metric(far))
    assert fluency.perplexity(near) == fluency.perplexity(far) == pytest.approx(math.exp(1.4), rel=1e-6)


def test_a_row_that_is_only_its_end_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match="id 1 has no token but its end"):
        memorisation.probability(answers(LOGS, []))


def test_rouge_l_of_five_words() -> None:
    found = memorisation.rouge_l("the red fox, sleeps!", "The quick red fox jumps")  # the red fox: 3 of 4, 3 of 5
    assert (found.precision, found.recall) == (0.75, 0.6)
    assert found.f1 == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    assert memorisation.rouge_l("fox red the", "the red fox").recall == pytest.approx(1 / 3)  # the order counts
    assert memorisation.rouge_l("", "the red fox") == memorisation.Rouge(0.0, 0.0, 0.0)
    each = memorisation.rouge_each(["a b", "c"], ["a b c d", "d"])
    assert each.tolist() == [0.5, 0.0]


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_rouge_l_is_the_longest_common_subsequence(ours: list[str], theirs: list[str]) -> None:
    def longest(a: list[str], b: list[str]) -> int:
        if not a or not b:
            return 0
        return 1 + longest(a[1:], b[1:]) if a[0] == b[0] else max(longest(a[1:], b), longest(a, b[1:]))

    found = memorisation.rouge_l(" ".join(ours), " ".join(theirs))
    assert found.recall == pytest.approx(longest(ours, theirs) / len(theirs) if theirs else 0.0)
    assert found.precision == pytest.approx(longest(ours, theirs) / len(ours) if ours else 0.0)


# --- truth


def test_truth_ratios_of_two_wrong_answers() -> None:
    true, wrong = answers(LOGS), [answers([-1.0] * 5), answers([-3.0] * 5)]
    assert float(knowledge.truth_ratio(true, wrong)) == pytest.approx(math.exp(1.4 - 2.0), rel=1e-6)
    mean = (math.exp(-1.0) + math.exp(-3.0)) / 2
    assert float(knowledge.arithmetic_truth_ratio(true, wrong)) == pytest.approx(mean / math.exp(-1.4), rel=1e-6)
    chosen = math.exp(-1.4) / (math.exp(-1.4) + math.exp(-1.0) + math.exp(-3.0))
    assert float(knowledge.choice(true, wrong)) == pytest.approx(chosen, rel=1e-6)
    known = math.exp(-1.4) / (math.exp(-1.4) + math.exp(-2.0))
    assert float(knowledge.extent(true, wrong)) == pytest.approx(known, rel=1e-6)


def test_truth_against_wrong_answers_of_another_length_is_per_token() -> None:
    assert float(knowledge.truth_ratio(answers(LOGS), [answers([-1.4] * 2)])) == pytest.approx(1.0, rel=1e-6)


def test_scores_of_truth_ratios() -> None:
    ratios = torch.tensor([0.5, 2.0, 0.0, 1.0])
    assert knowledge.truth_kept(ratios) == pytest.approx((0.5 + 0 + 1 + 0) / 4)
    assert knowledge.truth_forgotten(ratios) == pytest.approx((0.5 + 0.5 + 0 + 1) / 4)
    assert knowledge.truth_forgotten(torch.tensor([math.inf, 1.0])) == 0.5


def test_truth_needs_wrong_answers_to_the_same_questions() -> None:
    with pytest.raises(BadInput, match="no wrong answers"):
        knowledge.truth_ratio(answers(LOGS), [])
    with pytest.raises(BadInput, match="the same questions"):
        knowledge.truth_ratio(answers(LOGS), [answers(LOGS, LOGS)])


def test_forget_quality_by_hand() -> None:
    apart = knowledge.forget_quality(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0, 7.0]))
    assert apart.statistic == 1.0
    assert apart.p == pytest.approx(2 / math.comb(7, 3))  # two of all 35 orders are as extreme
    assert (apart.rows, apart.reference_rows) == (3, 4)
    same = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert knowledge.forget_quality(same, same).p == 1.0
    assert knowledge.forget_quality(torch.tensor([math.inf] * 5), same).statistic == 1.0
    for bad, words in ((same[:0], "there are 0 and 5"), (torch.tensor([math.nan]), "not numbers")):
        with pytest.raises(BadInput, match=words):
            knowledge.forget_quality(bad, same)


def test_model_utility_is_the_harmonic_mean_with_its_parts() -> None:
    found = knowledge.model_utility({"a": 0.5, "b": 0.25, "c": 1.0})
    assert found.value == pytest.approx(3 / (2 + 4 + 1))
    assert found.parts == {"a": 0.5, "b": 0.25, "c": 1.0}
    assert knowledge.model_utility({"a": 1.0, "b": 0.0}).value == 0.0
    for bad in ({}, {"a": -0.1}, {"a": math.nan}):
        with pytest.raises(BadInput, match="utilities"):
            knowledge.model_utility(bad)


def test_the_three_utilities_of_a_set() -> None:
    true, wrong = answers(LOGS), [answers([-1.0] * 5), answers([-3.0] * 5)]
    found = knowledge.utilities("retain", true, true, wrong, ["a b"], ["a b c d"])
    assert found["retain_probability"] == pytest.approx(math.exp(-1.4), rel=1e-6)
    assert found["retain_rouge"] == 0.5
    ratio = (math.exp(-1.0) + math.exp(-3.0)) / 2 / math.exp(-1.4)
    assert found["retain_truth_ratio"] == pytest.approx(1 - ratio, rel=1e-5)
    chosen = knowledge.utilities("world", true, true, wrong, [""], ["a"], choices=True)["world_probability"]
    assert chosen == pytest.approx(float(knowledge.choice(true, wrong)))


def test_a_question_after_solved_ones_and_its_answer_cut() -> None:
    asked = knowledge.few_shot("c?", [("a?", "b")])
    assert asked == "Question: a?\nAnswer: b\n\nQuestion: c?\nAnswer:"
    assert knowledge.cut(" d e\n\nQuestion: f?\nAnswer: g") == "d e"
    assert knowledge.cut("d e") == "d e"


# --- membership


def test_membership_scores_of_five_tokens() -> None:
    five = answers(LOGS)
    assert float(membership.loss(five)) == pytest.approx(1.4, rel=1e-6)
    size = len(zlib.compress(b"one two three four five"))
    assert float(membership.zlib_ratio(five, ["one two three four five"])) == pytest.approx(1.4 / size, rel=1e-6)
    assert float(membership.reference(five, answers([-1.0] * 5))) == pytest.approx(0.4, rel=1e-6)
    assert float(membership.min_k(five, 0.4)) == pytest.approx((4.0 + 2.0) / 2)  # two of five
    assert float(membership.min_k(five, 0.2)) == 4.0
    assert float(membership.min_k(five, 0.01)) == 4.0  # one at least
    assert float(membership.min_k(five, 0.59)) == pytest.approx(3.0)  # rounded down


def test_min_k_plus_plus_of_five_tokens() -> None:
    # mean -0.5 and deviation 0.5 everywhere: z = (log p + 0.5) / 0.5, of the lowest two -7 and -3
    assert float(membership.min_k_pp(answers(LOGS), 0.4)) == pytest.approx(5.0)
    sure = answers(LOGS)
    flat = Responses(sure.log_probs, sure.hits, sure.entropies, torch.zeros(6), sure.ends, sure.lengths, sure.ids)
    assert float(membership.min_k_pp(flat, 0.2)) == pytest.approx(3.5 / 1e-3, rel=1e-6)


def test_shares_of_tokens_and_pairs_of_rows_are_checked() -> None:
    with pytest.raises(BadInput, match="share=0"):
        membership.min_k(answers(LOGS), 0)
    with pytest.raises(BadInput, match="1 rows on one side, 2"):
        membership.zlib_ratio(answers(LOGS, LOGS), ["one"])
    with pytest.raises(BadInput, match="2 rows on one side, 1"):
        membership.reference(answers(LOGS, LOGS), answers(LOGS))


def test_lira_offline_and_online_by_hand() -> None:
    odds = torch.tensor([2.0, 0.0]).double()
    out, within = torch.tensor([[0.0, 0.0], [2.0, 2.0]]).double(), torch.tensor([[3.0, 1.0], [5.0, 3.0]]).double()
    offline = membership.lira(odds, out)  # both sides have variance 2 on both rows
    assert offline.tolist() == pytest.approx([(1 - 2) / math.sqrt(2), (1 - 0) / math.sqrt(2)])
    online = membership.lira(odds, out, within)  # -((x - 1)^2 - (x - m)^2) / 4 with m = 4 and 2
    assert online.tolist() == pytest.approx([-(1 - 4) / 4, -(1 - 4) / 4])
    assert membership.lira(odds, out[:1]).tolist() == [-2.0, 0.0]
    with pytest.raises(BadInput, match="two models or more"):
        membership.lira(odds, out[:1], within)
    with pytest.raises(BadInput, match=r"\(models, 2\)"):
        membership.lira(odds, out[:, :1])


def test_lira_has_a_deviation_for_each_row_with_many_models() -> None:
    spread = torch.linspace(-1, 1, 40).double()[:, None] * torch.tensor([1.0, 10.0]).double()
    many = membership.lira(torch.tensor([1.0, 1.0]).double(), spread)
    assert float(many[0] / many[1]) == pytest.approx(10.0)
    few = membership.lira(torch.tensor([1.0, 1.0]).double(), spread[10:30])
    assert float(few[0]) == pytest.approx(float(few[1]))


def test_log_odds_of_five_tokens() -> None:
    p = math.exp(-1.4)
    assert float(membership.log_odds(answers(LOGS))) == pytest.approx(math.log(p / (1 - p)), rel=1e-6)
    assert math.isfinite(float(membership.log_odds(answers([0.0] * 5))))


def test_the_two_conventions_of_an_auc() -> None:
    forget, holdout = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])
    assert membership.mia_auc(forget, holdout) == pytest.approx(3.5 / 4)  # members have low scores: memorised
    member_positive = float(torch.stack([(h < f) + 0.5 * (h == f) for f in forget for h in holdout]).double().mean())
    assert member_positive == pytest.approx(1 - 3.5 / 4)
    found = membership.privleak(3.5 / 4, 0.5)
    assert found == membership.Leak(-75.0, 3.5 / 4, 0.5)
    assert found.value == pytest.approx(100 * (member_positive - 0.5) / 0.5)  # as published, on the flipped one


@pytest.mark.parametrize(("auc", "retrained", "leak"), [(1.0, 0.5, -100.0), (0.4, 0.4, 0.0), (0.0, 0.5, 100.0)])
def test_privacy_leakage_has_a_sign(auc: float, retrained: float, leak: float) -> None:
    assert membership.privleak(auc, retrained).value == pytest.approx(leak)


def test_privacy_leakage_needs_a_retrained_model_that_does_not_tell_them_apart() -> None:
    with pytest.raises(BadInput, match="AUC of 1"):
        membership.privleak(0.5, 1.0)


class Bigram(nn.Module):
    """Logits are a row of a table for each token: gradients are known in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor([[0.0, 1.0, 2.0], [0.5, 0.0, -1.0], [1.0, 1.0, 0.0]]))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Tensor:
        return self.table[input_ids]


def test_the_gradient_norm_of_five_tokens() -> None:
    model = Bigram()
    source = tokens([[0, 2, 0, 2, 0, 2, EOS]], [1])  # five tokens after the prompt, and an end that does not count
    p0, _, p2 = model.table.detach().softmax(1)
    three, two = p0 - torch.tensor([0.0, 0.0, 1.0]), p2 - torch.tensor([1.0, 0.0, 0.0])
    norm = torch.cat([3 * three, 2 * two]).div(5).norm()
    found = membership.gradient_norm(model, source, eos=EOS)
    assert float(found) == pytest.approx(float(norm) / 2, rel=1e-6)  # of two weights one has no gradient
    one = membership.gradient_norm(model, source, eos=EOS, p=1.0)
    assert float(one) == pytest.approx(float(torch.cat([3 * three, 2 * two]).div(5).abs().sum()) / 2, rel=1e-6)


def test_the_gradient_norm_leaves_the_model_and_counts_frozen_weights() -> None:
    model = llama().train()
    expected = membership.gradient_norm(model, tokens(TEXTS, PROMPTS), eos=EOS)
    model.requires_grad_(False)
    found = membership.gradient_norm(model, tokens(TEXTS, PROMPTS), eos=EOS)
    assert torch.equal(expected, found)
    assert model.training
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


# --- fluency


def test_ngram_entropies_of_five_words() -> None:
    text = "a b a b c"  # ab twice, ba, bc; aba, bab, abc
    two, three = 1.5, math.log2(3)
    assert fluency.ngram_entropy(text, 2) == pytest.approx(two)
    assert fluency.ngram_entropy(text, 3) == pytest.approx(three)
    assert float(fluency.fluency([text])) == pytest.approx((2 / 3 * two + 4 / 3 * three) / 2)
    assert fluency.fluency(["a a a a", "a", ""]).tolist() == [0.0, 0.0, 0.0]


# --- rewording


def test_c_bod_by_hand() -> None:
    first = torch.cat([torch.ones(30), torch.zeros(10), torch.ones(5)])
    second = torch.cat([torch.zeros(30), torch.ones(10), torch.ones(5)])
    found = reword.c_bod(first, second)
    assert (found.b, found.c, found.items, found.difference) == (30, 10, 45, 20)
    assert found.chi2 == pytest.approx(10.0)
    assert found.p == pytest.approx(0.0016, abs=5e-5)
    assert found.overfit
    assert not found.superficial
    assert found.drop == pytest.approx(100 * (35 - 15) / 35)
    turned = reword.c_bod(second, first)
    assert turned.superficial
    assert not turned.overfit


def test_c_bod_is_exact_where_few_items_differ() -> None:
    found = reword.c_bod(torch.ones(5), torch.zeros(5))
    assert found.p == pytest.approx(2 / 2**5)  # chi2 would give 0.025, and a flag
    assert found.chi2 == 5.0
    assert not found.overfit


def test_c_bod_without_a_difference_and_ties() -> None:
    same = reword.c_bod(torch.zeros(3), torch.full((3,), 1e-7))
    assert (same.b, same.c, same.chi2, same.p, same.drop) == (0, 0, 0.0, 1.0, None)
    assert reword.c_bod(torch.tensor([0.5]), torch.tensor([0.6]), tie=0.2).c == 0


def test_rewordings_of_one_item_count_once() -> None:
    found = reword.c_bod(torch.tensor([1.0, 1.0]), torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]))
    assert (found.b, found.c) == (1, 0)
    with pytest.raises(BadInput, match="the same items"):
        reword.c_bod(torch.ones(3), torch.ones(2))


# --- responses


def slow(model: nn.Module, row: Sequence[int], prompt: int) -> list[tuple[float, bool, float, float]]:
    """Row by row and token by token, in double precision, with the end left out."""
    with torch.no_grad():
        logs = model(input_ids=torch.tensor([list(row)])).logits[0].double().log_softmax(1)
    found = []
    for place in range(prompt, len(row) - 1):
        here = logs[place - 1]
        mean = float((here.exp() * here).sum())
        variance = float((here.exp() * here.square()).sum()) - mean**2
        found.append((float(here[row[place]]), int(here.argmax()) == row[place], -mean, variance))
    return found


@pytest.mark.parametrize("make", [llama, gpt2])
def test_responses_are_those_of_single_rows(make: Any) -> None:
    model = make()
    found = respond(model, tokens(TEXTS, PROMPTS), eos=EOS)
    assert found.lengths.tolist() == [3, 3, 5, 2]
    assert found.ids.tolist() == ["row 0", "row 1", "row 2", "row 3"]
    for i, (row, prompt) in enumerate(zip(TEXTS, PROMPTS, strict=True)):
        expected = torch.tensor(slow(model, row, prompt)).double()
        for column, name in enumerate(("log_probs", "hits", "entropies", "variances")):
            assert found.rows(name)[i].tolist() == pytest.approx(expected[:, column].tolist(), abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(4)), st.integers(1, 40), st.integers(0, 10))
def test_order_batches_and_padding_change_nothing(order: list[int], budget: int, pad: int) -> None:
    expected = respond(llama(), tokens(TEXTS, PROMPTS), eos=EOS)
    moved = tokens([TEXTS[i] for i in order], [PROMPTS[i] for i in order], pad)
    found = respond(llama(), moved, eos=EOS, budget=budget)
    for name in ("log_probs", "hits", "entropies", "variances"):
        for place, i in enumerate(order):
            assert torch.allclose(found.rows(name)[place], expected.rows(name)[i], atol=1e-5)


def test_only_the_last_token_is_an_end() -> None:
    found = respond(llama(), tokens([[2, EOS, 3, EOS], [2, 3, 4]], [1, 1]), eos={EOS, 7})
    assert found.ends.tolist() == [False, False, True, False, False]
    assert [len(row) for row in found.rows("log_probs")] == [2, 2]


def test_a_text_without_a_prompt_begins_at_its_second_token() -> None:
    assert respond(llama(), tokens([[2, 3, 4, EOS]], [0]), eos=EOS).lengths.tolist() == [3]


def test_a_forbidden_token_is_no_nan() -> None:
    class Forbids(nn.Module):
        def forward(self, input_ids: Tensor, use_cache: bool = False) -> Tensor:
            out = torch.zeros(*input_ids.shape, 4)
            out[..., 3] = -torch.inf
            return out

    found = respond(Forbids(), tokens([[0, 2, 3, EOS]], [1]), eos=EOS)
    assert found.rows("log_probs")[0].tolist() == pytest.approx([-math.log(3), -math.inf])
    assert found.rows("entropies")[0].tolist() == pytest.approx([math.log(3)] * 2)
    assert found.rows("variances")[0].tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
    assert float(memorisation.probability(found)) == 0.0


def test_no_rows_are_no_responses() -> None:
    found = respond(llama(), tokens(TEXTS, PROMPTS).take([]), eos=EOS)
    assert len(found) == 0
    assert found.rows("log_probs") == []
    assert memorisation.probability(found).shape == membership.min_k(found).shape == (0,)


def test_a_problem_books_the_rows_and_gives_its_sources_by_name() -> None:
    problem = Problem(llama(), task=CausalLM(), forget=tokens(TEXTS, PROMPTS))
    found = respond(problem, "forget", eos=EOS)
    assert torch.equal(found.log_probs, respond(llama(), tokens(TEXTS, PROMPTS), eos=EOS).log_probs)
    assert problem.passes == {"forget": 4}
    with pytest.raises(BadInput, match="names a source of a problem"):
        respond(llama(), "forget", eos=EOS)


class Turned(Wrap):
    """Serves the negative of what it trains, and writes what its net writes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.sign = net, -1.0

    def forward(self, **inputs: Any) -> Tensor:
        out: Tensor = self.net(**inputs).logits
        return out

    def predict(self, **inputs: Any) -> Tensor:  # type: ignore[override]
        return self.sign * self(**inputs)

    def generate(self, **inputs: Any) -> Tensor:
        out: Tensor = self.net.generate(**inputs)  # type: ignore[operator]
        return out


def test_a_wrap_is_asked_for_what_it_serves_and_the_mode_stays() -> None:
    plain, wrapped = llama(), Turned(llama()).train()
    served = respond(wrapped, tokens(TEXTS, PROMPTS), eos=EOS)
    assert wrapped.training
    assert not torch.allclose(served.log_probs, respond(plain, tokens(TEXTS, PROMPTS), eos=EOS).log_probs)
    wrapped.sign = 1.0
    same = respond(wrapped, tokens(TEXTS, PROMPTS), eos=EOS)
    assert torch.equal(same.log_probs, respond(plain, tokens(TEXTS, PROMPTS), eos=EOS).log_probs)


def test_outputs_that_are_no_logits_are_refused() -> None:
    class Scores(nn.Module):
        def forward(self, input_ids: Tensor, use_cache: bool = False) -> Tensor:
            return torch.zeros(len(input_ids), 3)

    with pytest.raises(BadInput, match="must give logits"):
        respond(Scores(), tokens(TEXTS, PROMPTS), eos=EOS)


# --- each once


# --- generation

STARTS = [[2, 3, 4], [5], [2, 3, 4], [6, 7, 8], [9, 2], [3, 3, 3]]


def by_hand(model: nn.Module, prompt: Sequence[int], most: int) -> list[int]:
    row = list(prompt)
    for _ in range(most):
        with torch.no_grad():
            row.append(int(model(input_ids=torch.tensor([row])).logits[0, -1].argmax()))
        if row[-1] == EOS:
            return row[len(prompt) : -1]
    return row[len(prompt) :]


@pytest.mark.parametrize("make", [llama, gpt2])
def test_greedy_writing_is_the_likeliest_token_after_token(make: Any) -> None:
    model = make(3)
    expected = [by_hand(model, prompt, 6) for prompt in STARTS]
    assert any(len(row) < 6 for row in expected), "no row ends early, which is half of what is tested"
    assert generate(model, STARTS, eos=EOS, max_new_tokens=6) == expected
    assert [generate(model, [prompt], eos=EOS, max_new_tokens=6)[0] for prompt in STARTS] == expected
    assert generate(Turned(model), STARTS, eos=EOS, max_new_tokens=6, size=2) == expected


@pytest.mark.parametrize("temperature", [0.5, 1.5])
def test_company_does_not_change_a_drawn_text(temperature: float) -> None:
    model, drawn = llama(1), {"eos": EOS, "max_new_tokens": 6, "temperature": temperature, "seed": 4}
    every = generate(model, STARTS, **drawn)
    assert every == generate(model, STARTS, size=1, **drawn)
    assert every[1] == generate(model, [STARTS[1]], **drawn)[0]
    assert every[::-1] != every
    turned = generate(model, [STARTS[i] for i in (5, 4, 3, 1, 0, 2)], **drawn)
    assert [turned[i] for i in (4, 3, 5, 2, 1, 0)] == every
    assert every[0] != every[2], "equal prompts are drawn apart"
    assert every != generate(model, STARTS, **{**drawn, "seed": 5})


def test_draws_have_the_models_distribution() -> None:
    model, n = llama(1), 1500
    first = [
        row[0] if row else EOS for row in generate(model, [[2, 3]] * n, eos=EOS, max_new_tokens=1, temperature=2.0)
    ]
    with torch.no_grad():
        expected = (model(input_ids=torch.tensor([[2, 3]])).logits[0, -1] / 2.0).softmax(0)
    found = torch.bincount(torch.tensor(first), minlength=VOCABULARY) / n
    assert torch.allclose(found, expected, atol=4 * 0.5 / math.sqrt(n))


def test_writing_leaves_the_global_generator_and_the_mode() -> None:
    model = llama().train()
    before = torch.get_rng_state()
    generate(model, STARTS, eos=EOS, max_new_tokens=4, temperature=1.0)
    assert torch.equal(before, torch.get_rng_state())
    assert model.training


def test_settings_that_come_with_a_model_do_not_decide() -> None:
    model = llama(3)
    expected = generate(model, STARTS, eos=EOS, max_new_tokens=6)
    config = model.generation_config
    config.do_sample, config.temperature, config.top_p, config.repetition_penalty = True, 0.6, 0.9, 5.0
    config.max_length, config.num_beams = 3, 2
    assert generate(model, STARTS, eos=EOS, max_new_tokens=6) == expected


@pytest.mark.parametrize(("prompts", "settings_", "words"), [
    ([[]], {}, "prompt 0 is empty"),
    ([[2] * 60], {}, "the model has 64 places"),
    ([[2]], {"temperature": -1.0}, "temperature=-1"),
    ([[2]], {"max_new_tokens": 0}, "max_new_tokens=0"),
])  # fmt: skip
def test_what_cannot_be_written_is_refused(prompts: list[list[int]], settings_: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        generate(llama(), prompts, eos=EOS, **{"max_new_tokens": 6, **settings_})


def test_a_model_that_cannot_write_is_refused() -> None:
    with pytest.raises(BadInput, match="Bigram has no generate"):
        generate(Bigram(), [[2]], eos=EOS, max_new_tokens=1)


def test_beginnings_of_passages_and_what_follows() -> None:
    passages = tokens([[2, 3, 4, 5, 6, EOS], [7, 8, 9]], [0, 0])
    prompts, follow = memorisation.beginnings(passages, first=2, most=2, eos=EOS)
    assert prompts == [[2, 3], [7, 8]]
    assert follow == [[4, 5], [9]]
    with pytest.raises(BadInput, match="row 1 has 3 tokens"):
        memorisation.beginnings(passages, first=3, most=2, eos=EOS)


def test_texts_are_decoded_without_special_tokens() -> None:
    class Tokenizer:
        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            assert skip_special_tokens
            return "".join(f" w{i}" for i in ids if i != EOS)

    assert generation.texts(Tokenizer(), [[2, 3, EOS], []]) == ["w2 w3", ""]


def test_a_model_passes_once_over_a_text_whatever_asks() -> None:
    """All probes that look at outputs share one pass a sheet, counted at the model's own forward."""
    from oblivio.audits.language.audit import audit
    from oblivio.audits.subjects import Subject
    from oblivio.data.language.people import people
    from oblivio.data.language.request import request
    from oblivio.jobs.language.training import word_tokens
    from oblivio.networks.language import llama

    texts = people(authors=4, forget=1, world=1, holdout=1, attributes=3)
    words = word_tokens(texts)
    model = llama(len(words), layers=1, width=8, heads=2, ff=8)
    roles = {"forget": "forget", "retain": "retain", "holdout": "holdout"}
    problem = request(model, words, **{role: texts.part(part) for role, part in roles.items()})
    passed: list[int] = []
    model.register_forward_hook(lambda _, args, kwargs, out: passed.append(out.logits.shape[0]), with_kwargs=True)
    nets = dict(problem.nets.items())
    other = [Subject(f"retrained {i}", "reference", nets) for i in range(2)]
    leave = ["relearning", "relearning_unrelated", "rouge", "retain_rouge", "utility", "fluency"]  # train, or write
    subjects = [Subject("outcome", "outcome", nets), Subject("original", "original", nets), *other]
    report = audit(problem, subjects, leave_out=leave)
    assert not [figure for figure in report["figures"] if figure["state"] == "failed"]
    asked = 3 * (1 + 1 + 1 + 5) + 9 * 1 + 3  # forget in all forms, retain as it is, and what was never learned
    assert sum(passed) == len(subjects) * asked
