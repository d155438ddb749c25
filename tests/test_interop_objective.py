"""Any term of an objective beside the own loss of a Trainer of Transformers."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from oblivio import interop, terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adamw
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.interop import Objective
from oblivio.interop.objective import START, tokens
from oblivio.networks.language import llama
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import CausalLM

VOCABULARY, WORDS, PROMPT = 30, 6, 3


class Rows(Dataset):
    """Items of a language model: a prompt, and an answer of which every token counts."""

    def __init__(self, n, seed):
        drawn = torch.randint(3, VOCABULARY, (n, WORDS), generator=torch.Generator().manual_seed(seed))
        self.items = [
            {"input_ids": row, "labels": row.clone().index_fill(0, torch.arange(PROMPT), -100)} for row in drawn
        ]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


FORGET, RETAIN = Rows(8, 0), Rows(32, 1)


def model():
    return llama(VOCABULARY, layers=2, width=16, heads=2, ff=32, seed=0)


def trainer(net, tmp_path, **given):
    settings = {"max_steps": 1, "learning_rate": 1e-2, "per_device_train_batch_size": 8, "max_grad_norm": 0.0, **given}
    args = TrainingArguments(
        output_dir=str(tmp_path), report_to=[], logging_strategy="no", disable_tqdm=True, use_cpu=True,
        lr_scheduler_type="constant", **{"save_strategy": "no", **settings},
    )  # fmt: skip
    return Trainer(model=net, args=args, train_dataset=RETAIN)


class Watcher(TrainerCallback):
    """The gradients that the optimiser is about to use."""

    def __init__(self):
        self.seen = []

    def on_pre_optimizer_step(self, args, state, control, *, model, **_):
        self.seen.append({n: p.grad.clone() for n, p in model.named_parameters()})


def gradients(objective, tmp_path, **given):
    watcher, made = Watcher(), trainer(model(), tmp_path, **given)
    if objective is not None:
        objective.attach(made)
    made.add_callback(watcher)
    made.train()
    return watcher.seen


def own(term, start=None):
    """The gradient of a term at the start, over whole sources."""
    problem = Problem(model(), task=CausalLM(), forget=tokens(FORGET), retain=tokens(RETAIN))
    problem.keep("start")
    return {n.removeprefix("model."): g for n, g in problem.gradient(term).items()}


def likelihood(net, rows):
    problem = Problem(net, task=CausalLM(), rows=tokens(rows))
    with torch.no_grad():
        return problem.tabulate("rows", lambda nets, b: problem.task.score(problem.task.forward(nets, "model", b), b))


# --- exactly the sum, whatever the Trainer does


@pytest.mark.parametrize("pieces", [1, 4])
def test_the_gradient_is_that_of_the_sum(tmp_path, pieces):
    """Eight rows are all of the forget set, so that what is drawn is known."""
    term = 2.0 * terms.npo("forget", 0.5)
    given = {"per_device_train_batch_size": 8 // pieces, "gradient_accumulation_steps": pieces}
    (plain,) = gradients(None, tmp_path, **given)
    (both,) = gradients(Objective(term, batch=8, forget=FORGET), tmp_path, **given)
    added = own(term)
    assert max(float(g.abs().max()) for g in added.values()) > 1e-3
    for name, g in plain.items():
        torch.testing.assert_close(both[name], g + added[name], atol=1e-6, rtol=1e-4)


def test_a_rule_states_its_own_gradient(tmp_path):
    rule = terms.sam(terms.fit("forget"), rho=0.5)
    (plain,), (both,) = gradients(None, tmp_path), gradients(Objective(rule, forget=FORGET), tmp_path)
    added, without = own(rule), own(terms.fit("forget"))
    for name, g in plain.items():
        torch.testing.assert_close(both[name], g + added[name], atol=1e-6, rtol=1e-4)
    assert max(float((added[n] - without[n]).abs().max()) for n in added) > 1e-3


def test_two_objectives_add(tmp_path):
    made = trainer(model(), tmp_path)
    watcher = Watcher()
    for _ in range(2):
        Objective(terms.fit("forget"), forget=FORGET).attach(made)
    made.add_callback(watcher)
    made.train()
    ((plain,), added) = gradients(None, tmp_path), own(terms.fit("forget"))
    for name, g in plain.items():
        torch.testing.assert_close(watcher.seen[0][name], g + 2 * added[name], atol=1e-6, rtol=1e-4)


# --- the model of the start


def test_scores_of_the_start_are_computed_once(tmp_path):
    net, passes = model(), []
    net.register_forward_hook(lambda _, __, kwargs, out: passes.append(len(kwargs["input_ids"])), with_kwargs=True)
    made = trainer(net, tmp_path, max_steps=5)
    objective = Objective(terms.npo("forget", 0.5), batch=4, forget=FORGET).attach(made)
    start = likelihood(model(), FORGET)
    made.train()
    (kept,) = load_file(tmp_path / START).values()
    torch.testing.assert_close(kept, start)
    once = [1, 8]  # a row shows how wide the scores are, then all rows have theirs
    assert passes == [*once, *[4, 8] * 5]  # at every step a pass of the term and one of the Trainer
    assert objective._step.problem.snapshots == {}  # no second model


def test_it_forgets_while_the_trainer_learns(tmp_path):
    net = model()
    problem = Problem(net, task=CausalLM(), forget=tokens(FORGET), retain=tokens(RETAIN))
    Run(Descent(terms.fit("forget") + terms.fit("retain"), opt=adamw(1e-2), steps=40, batch=8), problem).go()
    before = likelihood(net, FORGET).mean(), likelihood(net, RETAIN).mean()
    made = trainer(net, tmp_path, max_steps=15, learning_rate=3e-3)
    Objective(terms.npo("forget", 0.5), forget=FORGET).attach(made)
    made.train()
    assert likelihood(net, FORGET).mean() < before[0] - 5
    assert likelihood(net, RETAIN).mean() > before[1]


def test_a_resumed_training_reads_the_scores_of_its_start(tmp_path):
    def objective():
        return Objective(terms.npo("forget", 0.5), batch=4, forget=FORGET)

    given = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    nets = model(), model()
    whole = trainer(nets[0], tmp_path / "a", **given)
    objective().attach(whole)
    whole.train()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / START).write_bytes((tmp_path / "a" / START).read_bytes())
    again = trainer(nets[1], tmp_path / "b", **given)
    other = objective().attach(again)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    (kept,) = other._step.problem.frozen.values()
    torch.testing.assert_close(kept, likelihood(model(), FORGET))
    for a, b in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(a, b)


def test_a_start_that_is_gone_is_missed(tmp_path):
    given = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    made = trainer(model(), tmp_path, **given)
    Objective(terms.distill("forget"), forget=FORGET).attach(made)  # reads logits of the start
    made.train()
    again = trainer(model(), tmp_path, **{**given, "max_steps": 3})
    Objective(terms.distill("forget"), forget=FORGET).attach(again)
    with pytest.raises(BadInput, match="train in one go"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


# --- what it is given


def test_a_missing_source_is_named():
    with pytest.raises(BadInput, match="give retain= to Objective"):
        Objective(terms.npo("forget") + terms.fit("retain"), forget=FORGET)


def test_items_become_tokens():
    """Padding goes: labels that do not count any more, at the end."""
    made = tokens([
        {"input_ids": [5, 6, 7, 8, 0, 0], "labels": [-100, -100, 7, 8, -100, -100]},
        {"input_ids": [5, 6]},
    ])  # fmt: skip
    assert [made.sequence(i) for i in range(2)] == [([5, 6, 7, 8], 2), ([5, 6], 0)]


@pytest.mark.parametrize("labels", [[-100] * 3, [5, -100, 7], [-100, 9, 7]])
def test_labels_that_cannot_be_meant(labels):
    with pytest.raises(BadInput, match="item 0 are not -100 up to an answer"):
        tokens([{"input_ids": [5, 6, 7], "labels": labels}])


def test_sources_are_taken_as_they_are(tmp_path):
    rows = Tokens([row["input_ids"].tolist() for row in FORGET], [PROMPT] * len(FORGET))
    ours, theirs = (gradients(Objective(terms.fit("forget"), forget=f), tmp_path) for f in (rows, FORGET))
    for name, g in ours[0].items():
        torch.testing.assert_close(g, theirs[0][name])


def test_names_of_interop():
    assert set(interop.__all__) == {"Objective", "Remember"}
    with pytest.raises(AttributeError, match="Recall"):
        _ = interop.Recall
