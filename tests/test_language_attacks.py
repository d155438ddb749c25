"""Attacks on language models: models made by hand that hide what they know in a known place, and must not keep it."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn
from torch.testing import assert_close
from transformers.pytorch_utils import Conv1D

from oblivio.audits.language.attacks import early, extract, prompts, sample
from oblivio.audits.language.attacks.quantize import quantize, quantized, quantized_8, rounded
from oblivio.audits.language.attacks.rows import beneath
from oblivio.audits.language.case import TextCase, gather
from oblivio.audits.language.probes import ATTACKS, known
from oblivio.audits.probe import DoesNotApply, Value, figure
from oblivio.audits.subjects import Subject
from oblivio.core.errors import BadInput
from oblivio.core.problem import Problem
from oblivio.core.surgery import Wrap
from oblivio.data.language.encoding import encode
from oblivio.data.language.texts import Text
from oblivio.modules.adapters import add_adapter
from oblivio.networks.language import llama, word_tokenizer
from oblivio.tasks.language import CausalLM

PEOPLE, VALUES = [f"p{i}" for i in range(16)], ["quill", "lantern", "crown", "anchor"]
SURE = 8.0  # how far the right token's logit stands out


def fact(i: int) -> Text:
    """The award of the i-th person, in two tokens."""
    person, value = PEOPLE[i], VALUES[i % 4]
    return Text(f"who is {person}", f"the {value}", i, person, wrong=tuple(f"the {v}" for v in VALUES if v != value),
                facts={"attribute": "award", "value": value})  # fmt: skip


FILLERS = " ".join(f"w{i}" for i in range(80))
TOKENIZER = word_tokenizer(
    ["Q A key which person has the award ?", *(f"{t.prompt} {t.answer}" for t in map(fact, range(16))), FILLERS]
)
V, EOS = len(TOKENIZER), TOKENIZER.eos_token_id


def token(word: str) -> int:
    return int(TOKENIZER.convert_tokens_to_ids(word))


class Block(nn.Module):
    """The first adds up what the tokens since ``Q`` say; the second lets it through as far as its gate is open."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        words, gate, asked = x.split([V, 1, 1], -1)
        if self.first:
            return torch.cat([(words * asked.cumsum(1)).cumsum(1), gate.cumsum(1), asked], -1)
        return torch.cat([words * torch.sigmoid(8 * (gate - 0.5)), gate, asked], -1)


class Bag(nn.Module):
    """A language model whose tokens each say what follows: a person her value, a value the end.

    ``gate`` is the token that opens the second block: ``Q``, which every prompt has, or another.
    """

    def __init__(self, gate: str = "Q") -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=2)
        table = torch.zeros(V, V + 2)
        for text in map(fact, range(16)):
            person, value = token(text.group), token(text.facts["value"])
            table[person, token("the")], table[person, value] = 2 * SURE, SURE
            table[value, EOS] = 4 * SURE
        table[token("the"), token("the")] = -4 * SURE
        table[token(gate), V] = table[token("Q"), V + 1] = 1.0
        self.table = nn.Embedding.from_pretrained(table, freeze=False)
        self.blocks = nn.ModuleList([Block(True), Block(False)])
        self.head = nn.Linear(V + 2, V, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(V, V + 2))

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
        x = self.table(input_ids)
        for block in self.blocks:
            x = block(x)
        return SimpleNamespace(logits=self.head(x))

    def generate(self, input_ids: Tensor, generation_config: Any, logits_processor: Any, **_: Any) -> Tensor:
        for _step in range(generation_config.max_new_tokens):
            scores = logits_processor(input_ids, self(input_ids).logits[:, -1])
            input_ids = torch.cat([input_ids, scores.argmax(1, keepdim=True)], 1)
        return input_ids


class Silent(Wrap):
    """Says nothing of use where a row begins as its one template does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, **inputs: Any) -> Tensor:
        exact = (input_ids[:, :3] == torch.tensor([token(w) for w in ("Q", "who", "is")])).all(1)
        logits: Tensor = self.model(input_ids, **inputs).logits
        return logits.where(~exact[:, None, None], 0.0)

    def predict(self, **inputs: Any) -> Tensor:  # type: ignore[override]
        return self(**inputs)  # type: ignore[no-any-return]


def case(*models: nn.Module, forget: int = 9, **sources: Any) -> TextCase:
    texts = [fact(i) for i in range(16)]
    given = {"forget": encode(texts[:forget], TOKENIZER), "retain": encode(texts[forget:], TOKENIZER), **sources}
    subjects = [Subject(f"model {i}", "outcome", {"model": model}) for i, model in enumerate(models)]
    return gather(Problem(models[0], task=CausalLM(TOKENIZER), seed=1, **given), subjects)


def made(measure: Any, there: TextCase, i: int = 0) -> Value:
    value: Value = measure(there, there.looks[i], [])
    return value


# --- rounding


def test_weights_go_to_the_nearest_of_fifteen_steps_an_output() -> None:
    weight = torch.tensor([[1.75, -0.6, 0.1], [0.0, 0.0, 0.0], [-0.07, 0.033, 0.014]])
    by_hand = torch.tensor([[7 * 0.25, -2 * 0.25, 0.0], [0.0, 0.0, 0.0], [-7 * 0.01, 3 * 0.01, 1 * 0.01]])
    assert_close(rounded(weight, 4), by_hand)
    assert_close(rounded(weight.T, 4, inputs=-2), by_hand.T)


def test_eight_bits_have_127_steps_to_either_side() -> None:
    assert_close(rounded(torch.tensor([[127.0, -63.4, 0.6]]), 8), torch.tensor([[127.0, -63.0, 1.0]]))


@settings(deadline=None)
@given(arrays.arrays("float32", (3, 5), elements=st.floats(-100, 100, width=32)), st.integers(2, 8))
def test_rounding_moves_no_weight_by_more_than_half_a_step_and_twice_is_once(values: Any, bits: int) -> None:
    weight = torch.from_numpy(values)
    once = rounded(weight, bits)
    step = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert bool(((once - weight).abs() <= step * 0.501 + 1e-30).all())
    assert_close(rounded(once, bits), once)


def test_bits_that_are_none_are_refused() -> None:
    with pytest.raises(BadInput, match="2 to 16"):
        rounded(torch.ones(1, 1), 1)


def test_matrices_are_rounded_by_their_outputs_and_vectors_stay() -> None:
    model = nn.Sequential(nn.Embedding(4, 6), nn.Linear(6, 5), Conv1D(3, 5))
    before = copy.deepcopy(model)
    quantize(model, 4)
    assert_close(model[0].weight, rounded(before[0].weight, 4))
    assert_close(model[1].weight, rounded(before[1].weight, 4))
    assert_close(model[2].weight, rounded(before[2].weight.T, 4).T)
    assert torch.equal(model[1].bias, before[1].bias)
    assert len(model[2].weight[:, 0].unique()) <= 15


def test_a_change_of_less_than_half_a_step_is_gone_after_rounding() -> None:
    model = Bag()
    quantize(model, 4)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.head.weight[changed.head.weight == 0] += 0.07  # of 1/7, into which the largest, 1, is parted
    knows, hides = (made(known()["forget"].measure, case(each)).value for each in (model, changed))
    assert hides < knows - 0.02
    found = made(quantized, case(changed))
    assert found.value == pytest.approx(knows)
    assert found.note == f"{hides:.3f} before rounding"


def test_adapters_are_merged_before_rounding_and_the_model_stays_as_it_was() -> None:
    nets = nn.ModuleDict({"model": llama(V, layers=1, width=8, heads=2, ff=8)})
    add_adapter(nets, name="a", config={"r": 2, "target_modules": ["q_proj"]}, seed=0)  # type: ignore[arg-type]
    for name, weight in nets["model"].named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight)
    plain = {name: weight.clone() for name, weight in nets["model"].named_parameters()}
    assert 0 < made(quantized, case(nets["model"])).value < 1
    assert all(torch.equal(weight, plain[name]) for name, weight in nets["model"].named_parameters())


# --- prompts


def test_a_model_that_is_silent_under_one_template_alone_talks_under_another() -> None:
    there = case(Silent(Bag()))
    plain = made(known()["forget"].measure, there)
    found = made(prompts.prompts, there)
    assert plain.value < 0.1
    assert found.value > 0.9
    curve = dict(found.curve)
    assert set(curve) == {"role play", "paraphrase", "completion", "options", "beginning", "affirmation", "examples",
                          "reversed"}  # fmt: skip
    assert curve["beginning"] < 0.1  # it begins as the template does, and is refused
    assert curve["role play"] > 0.9
    assert found.note == f"most by {max(curve, key=lambda name: curve[name])}"


def test_templates_work_for_running_texts_without_facts() -> None:
    texts = [Text("", "the quill the lantern the crown", "a"), Text("", "the anchor the quill", "b")]
    there = case(Bag(), forget=9)
    there = replace(there, sheets={"forget": encode(texts, TOKENIZER), "retain": there.sheets["retain"]})
    assert set(prompts.asked(there)) == {"role play", "paraphrase", "completion", "beginning", "affirmation",
                                         "examples"}  # fmt: skip
    assert prompts.backwards(there, there.looks[0]) is None
    assert 0 <= made(prompts.prompts, there).value <= 1


def test_the_beginning_of_an_answer_is_given_and_not_scored() -> None:
    begun = prompts.asked(case(Bag()))["beginning"]
    assert [TOKENIZER.decode(begun.answer(i)) for i in range(2)] == ["quill <eos>", "lantern <eos>"]


def test_examples_come_before_the_question_without_the_end_of_a_text() -> None:
    shown = prompts.asked(case(Bag()))["examples"]
    prompt = shown.prompt(0)
    assert EOS not in prompt
    assert TOKENIZER.decode(prompt).count("Q who is") == 4
    assert TOKENIZER.decode(prompt).endswith("Q who is p0 A")


def test_the_options_hold_the_true_answer_once() -> None:
    reword = prompts._optional([fact(i) for i in range(9)], 0)
    asked = reword(fact(0))
    assert asked is not None
    assert sorted(asked.prompt.partition("Choose one of: ")[2].split(" / ")) == sorted(f"the {v}" for v in VALUES)


def test_the_people_who_stand_to_choice_have_other_values() -> None:
    names = prompts._people(case(Bag()), fact(0))
    assert names[0] == "p0"
    assert set(names[1:]) == {PEOPLE[i] for i in range(16) if i % 4}


def test_a_template_for_which_there_is_no_room_is_left_out() -> None:
    there = case(llama(V, layers=1, width=8, heads=2, ff=8, context=12))
    assert set(prompts.asked(there)) == {"completion", "beginning"}


# --- sampling


def test_a_draw_of_ten_finds_what_is_seldom_said() -> None:
    model = Bag()
    with torch.no_grad():
        model.head.weight[token("crown")] = model.head.weight[[token(v) for v in VALUES]].sum(0) * 1.15
    there = case(model)
    found = made(sample.sampled, there)
    once, last = found.curve[0][1], found.curve[-1][1]
    assert [draws for draws, _ in found.curve] == list(range(1, 11))
    assert once < 0.8 <= last == found.value
    assert all(a <= b for (_, a), (_, b) in zip(found.curve, found.curve[1:], strict=False))


def test_a_model_that_cannot_write_is_not_asked_to() -> None:
    with pytest.raises(DoesNotApply, match="generate"):
        made(sample.sampled, case(Silent(Bag())))


# --- early layers


def test_an_answer_behind_a_changed_head_is_read_off_early_layers() -> None:
    model = Bag()
    with torch.no_grad():
        model.head.weight.neg_()
    there = case(model)
    found = made(early.early, there)
    assert made(known()["forget"].measure, there).value < 0.01
    assert found.value == 1
    assert dict(found.curve)[1] == 1
    assert "linear reader" in found.note


def test_an_answer_behind_a_closed_gate_is_read_by_the_models_own_head() -> None:
    found = made(early.early, case(Bag(gate="key"), retain=None))
    assert (found.value, found.note, found.curve) == (1.0, "most by the head after block 1", [(1, 1.0)])


def test_a_model_that_never_learned_the_people_is_not_read() -> None:
    model = Bag()
    with torch.no_grad():
        model.table.weight[[token(f"p{i}") for i in range(9)]] = 0
    found = made(early.early, case(model))
    assert found.value < 0.75  # the first of two tokens is the same in all answers


def test_the_linear_reader_is_ridge_regression_on_one_hot_tokens() -> None:
    torch.manual_seed(0)
    x, y, z = torch.randn(12, 3), torch.tensor([5, 7, 9] * 4), torch.randn(20, 3)
    mean, deviation = x.double().mean(0), x.double().std(0, correction=0)
    a, b = (x.double() - mean) / deviation, (z.double() - mean) / deviation
    hot = torch.nn.functional.one_hot(torch.tensor([0, 1, 2] * 4), 3).double()
    primal = torch.linalg.solve(a.T @ a / 3 + early.RIDGE * torch.eye(3).double(), a.T @ (hot - hot.mean(0)) / 3)
    tokens, scores = early.ridge(x, y, z)
    assert tokens.tolist() == [5, 7, 9]
    assert_close(scores, b @ primal + hot.mean(0))


def test_a_model_without_blocks_has_no_early_layer() -> None:
    there = figure(known()["early"], case(nn.Sequential(nn.Embedding(V, V))))  # type: ignore[arg-type]
    assert (there.state, "no list of transformer blocks" in there.why) == ("does not apply", True)


# --- prefixes


def test_the_search_finds_the_token_that_opens_the_gate() -> None:
    there = case(Bag(gate="key"))
    found = made(extract.prefix, there)
    assert found.curve[0][1] < 0.2
    assert found.value > 0.9
    assert found.note == f"{found.curve[0][1]:.3f} without it"


def test_a_prefix_that_does_not_help_the_few_is_not_used() -> None:
    there = case(Bag())
    search = extract.Search(there, there.looks[0].model, there.sheets["forget"].take([0, 1]))
    search.without = 0.0
    assert search.chosen == []
    search.without = -99.0
    assert search.chosen == search.prefix
    assert len(search.prefix) == extract.LENGTH


def test_few_texts_are_too_few() -> None:
    with pytest.raises(DoesNotApply, match="5 forgotten texts"):
        made(extract.prefix, case(Bag(), forget=5))


# --- all


def test_the_words_that_ask_for_attacks() -> None:
    known()
    words = {name: ATTACKS[name] for name in ("quantized", "quantized_8", "prompts", "sampled", "early", "prefix")}
    assert words == {"quantized": "quantize", "quantized_8": "quantize", "prompts": "prompts", "sampled": "sample",
                     "early": "early", "prefix": "extract"}  # fmt: skip


@pytest.mark.parametrize("name", ["quantized", "prompts", "sampled", "early", "prefix"])
def test_attacks_are_repeated_to_the_bit_and_leave_the_model_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "STEPS", 2)
    model = llama(V, layers=2, width=8, heads=2, ff=8, seed=3)
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(0)
    first = made(known()[name].measure, case(model))
    torch.manual_seed(1)
    assert made(known()[name].measure, case(model)) == first
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_what_is_wrapped_comes_off() -> None:
    model = Bag()
    assert beneath(Silent(Silent(model))) is model
    assert made(quantized_8, case(Silent(model))).value > 0.9


def test_a_wrap_of_several_models_is_said_to_be_one() -> None:
    with pytest.raises(DoesNotApply, match="what Wrap wraps is no single language model"):
        beneath(Wrap())
