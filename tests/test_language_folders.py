"""Folders of language models: what is written opens elsewhere and here, and what cannot be opened is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from oblivio import where
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adamw
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.modules.adapters import quiet
from oblivio.networks.language import (
    blocks,
    embedding,
    gpt2,
    llama,
    mixtral,
    mlp_outputs,
    open_model,
    routers,
    save_model,
)
from oblivio.networks.language.tokenizers import bpe_tokenizer, word_tokenizer
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import CausalLM
from oblivio.terms import distill, fit

WORDS = "who is she ? ada bo cy di"
X = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
KINDS: dict[str, Callable[[int], Any]] = {
    "llama": lambda n: llama(n, layers=2, width=16, heads=2, ff=16),
    "gpt2": lambda n: gpt2(n, layers=2, width=16, heads=2),
    "mixtral": lambda n: mixtral(n, layers=2, width=16, heads=2, ff=8, experts=4),
    "tied": lambda n: llama(n, layers=2, width=16, heads=2, ff=16, tied=True),
}


def tokenizer() -> Any:
    return word_tokenizer([WORDS])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=X).logits


def rows(ids: str = "abc") -> Tokens:
    return Tokens([[3, 4, 5, 6, 7, 1], [3, 4, 5, 6, 8, 1], [4, 3, 9, 1]], [4, 4, 2], ids=list(ids))


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_was_trained_opens_here_and_in_transformers(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = tokenizer()
    problem = Problem(KINDS[kind](len(words)), task=CausalLM(words), train=rows())
    Run(Descent(fit("train"), opt=adamw(0.01), steps=2, batch=2), problem).go()
    save_model(tmp_path / "m", problem.model, words, facts={"method": "fit"})
    model, read = open_model(tmp_path / "m")
    assert torch.equal(logits(model), logits(problem.model))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "m")), logits(problem.model))
    assert read("who is ada")["input_ids"] == AutoTokenizer.from_pretrained(tmp_path / "m")("who is ada")["input_ids"]
    assert json.loads((tmp_path / "m" / "oblivio.json").read_text())["method"] == "fit"


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral", "tied"])
def test_an_adapter_alone_moves_and_is_a_folder_of_peft(kind: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    words = tokenizer()
    given = KINDS[kind](len(words))
    save_model(tmp_path / "base", given, words)
    problem = Problem(given, task=CausalLM(words), forget=rows(), retain=rows("def"))
    before = {n: w.clone() for n, w in problem.nets.named_parameters()}
    plan = Descent(fit("forget") + distill("retain"), where=where.lora(r=2), over="forget", epochs=4, opt=adamw(0.02))
    Run(plan, problem).go()
    now = {n.replace(".base_layer", ""): w for n, w in problem.nets.named_parameters()}
    assert all(torch.equal(now[n], w) for n, w in before.items())
    start = problem.at("start", lambda nets: nets["model"](input_ids=X).logits)
    assert torch.allclose(start, logits(open_model(tmp_path / "base")[0]), atol=1e-6)
    assert not torch.allclose(logits(problem.model), start, atol=1e-4)
    save_model(tmp_path / "adapter", problem.model, words, base=tmp_path / "base")
    with quiet():
        theirs = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
        )
    assert torch.allclose(logits(theirs), logits(problem.model), atol=1e-6)
    assert torch.allclose(logits(open_model(tmp_path / "adapter")[0]), logits(problem.model), atol=1e-6)


def test_a_run_with_an_adapter_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    def made() -> Problem:
        return Problem(KINDS["llama"](11), task=CausalLM(), forget=rows())

    plan = Descent(fit("forget"), where=where.lora(r=2, dropout=0.1), steps=6, batch=2, opt=adamw(0.02))
    whole = Run(plan, made()).go()

    class Killed(Exception):
        pass

    def kill(run: Run, *_: object) -> None:
        if run.steps == 3:
            run.checkpoint()
            raise Killed

    with pytest.raises(Killed):
        Run(plan, made(), tmp_path / "run", watch=[kill]).go()
    again = Run(plan, made(), tmp_path / "run").resume().go()
    assert {n: w.tolist() for n, w in again.nets.named_parameters()} == {
        n: w.tolist() for n, w in whole.nets.named_parameters()
    }


def test_a_target_that_is_no_module_is_refused() -> None:
    problem = Problem(KINDS["llama"](11), task=CausalLM(), forget=rows())
    plan = Descent(fit("forget"), where=where.lora(targets=["query"]), steps=1)
    with pytest.raises(BadInput, match=r"LoRA: .*query.* Name layers such as q_proj"):
        Run(plan, problem).go()


def test_parts_have_the_same_words_in_every_family() -> None:
    assert mlp_outputs(KINDS["llama"](11))[1] == "model.layers.1.mlp.down_proj.weight"
    assert mlp_outputs(KINDS["gpt2"](11))[0] == "transformer.h.0.mlp.c_proj.weight"
    assert routers(KINDS["mixtral"](11)) == [f"{block}.mlp.gate.weight" for block in blocks(KINDS["mixtral"](11))]
    assert embedding(KINDS["gpt2"](11)) == "transformer.wte.weight"
    with pytest.raises(BadInput, match="is dense"):
        routers(KINDS["llama"](11))
    with pytest.raises(BadInput, match="no list of transformer blocks"):
        blocks(torch.nn.Linear(2, 2))


def test_byte_pairs_write_every_text() -> None:
    made = bpe_tokenizer(["the cat sat on the mat"] * 3, size=300)
    for text in ("the cat", "Zürich, 東京 & émigré"):
        assert made.decode(made(text)["input_ids"]) == text


# --- what cannot be opened


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is no language model: it holds neither config.json"):
        open_model(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "m", KINDS["llama"](5), tokenizer())
    with pytest.raises(BadInput, match=r"the tokenizer has the token 10, the model only 5 of them"):
        open_model(tmp_path / "m")


def test_code_in_a_folder_is_not_run(tmp_path: Path) -> None:
    words = tokenizer()
    save_model(tmp_path / "m", KINDS["llama"](len(words)), words)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(
        json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "evil.Model"}})
    )
    (tmp_path / "m" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(BadInput, match=r"comes with code of its own.*trust=evil.Model"):
        open_model(tmp_path / "m")
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_a_pickle_are_refused(tmp_path: Path) -> None:
    words = tokenizer()
    save_model(tmp_path / "m", KINDS["llama"](len(words)), words)
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(BadInput, match="cannot be opened as a language model"):
        open_model(tmp_path / "m")


def test_an_adapter_without_its_base_is_refused(tmp_path: Path) -> None:
    words = tokenizer()
    given = KINDS["llama"](len(words))
    save_model(tmp_path / "base", given, words)
    problem = Problem(given, task=CausalLM(), forget=rows())
    Run(Descent(fit("forget"), where=where.lora(r=2), steps=1, batch=2), problem).go()
    with pytest.raises(BadInput, match="written without its base"):
        save_model(tmp_path / "lost", problem.model, words)
    assert not (tmp_path / "lost").exists()
    save_model(tmp_path / "adapter", problem.model, words, base=tmp_path / "base")
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(BadInput, match="names the base model"):
        open_model(tmp_path / "adapter")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match="holds something"):
        save_model(tmp_path, KINDS["llama"](11), tokenizer())
    assert (tmp_path / "file").read_text() == "mine"


def test_a_snapshot_follows_weights_that_an_adapter_renames() -> None:
    problem = Problem(KINDS["llama"](11), task=CausalLM(), forget=rows())
    before = {n: w.clone() for n, w in problem.nets.named_parameters()}
    problem.keep("then")
    problem.move()
    where.lora(r=2).prepare(problem)
    kept = problem.kept("then")
    assert all(torch.equal(kept[n if n in kept else _under(n)], w) for n, w in before.items())
    assert set(dict(problem.nets.named_parameters())) <= set(kept)


def _under(name: str) -> str:
    return f"{name.rpartition('.')[0]}.base_layer.{name.rpartition('.')[2]}"
