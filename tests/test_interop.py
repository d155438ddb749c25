"""The Trainer of Transformers, with and without what was learned before."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from oblivio import interop
from oblivio.core.errors import BadInput
from oblivio.interop import Remember
from oblivio.interop.items import Kept, Raw, items_of

TOKENS = 12  # of the vocabulary, 1 to 11; 0 pads


class Rows(Dataset):
    """Items as a tokenizer leaves them: lists, of different length."""

    def __init__(self, items, ids=None):
        self.items, self.ids = items, ids

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def rows(labels, seed, n=64, **given):
    """The label of a row stands at its first token, 1 + label; the rest is noise."""
    draw = np.random.default_rng(seed)
    items = []
    for i in range(n):
        label = labels[i % len(labels)]
        noise = draw.integers(6, TOKENS, size=draw.integers(2, 6)).tolist()
        items.append({"input_ids": [1 + label, *noise], "labels": label})
    return Rows(items, **given)


def collate(items):
    width = max(len(item["input_ids"]) for item in items)
    ids = torch.tensor([item["input_ids"] + [0] * (width - len(item["input_ids"])) for item in items])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor([i["labels"] for i in items])}


def bert(seed=0):
    torch.manual_seed(seed)
    sizes = {"vocab_size": TOKENS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertForSequenceClassification(
        BertConfig(
            **sizes, **dropout, intermediate_size=32, max_position_embeddings=8, num_labels=4, initializer_range=0.2
        )
    )


def trainer(model, data, tmp_path, **given):
    settings = {"learning_rate": 1e-2, "num_train_epochs": 3, "per_device_train_batch_size": 16, **given}
    args = TrainingArguments(
        output_dir=str(tmp_path), report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
        use_cpu=True, **settings,
    )  # fmt: skip
    return Trainer(model=model, args=args, train_dataset=data, data_collator=collate)


@torch.no_grad()
def accuracy(model, data):
    batch = collate(data.items)
    labels = batch.pop("labels")
    return float((model.eval()(**batch).logits.argmax(1) == labels).float().mean())


FIRST, SECOND = rows([0, 1], seed=0), rows([2, 3], seed=1)
TEST = rows([0, 1], seed=2), rows([2, 3], seed=3)


def taught(memory, tmp_path, tasks=(FIRST, SECOND), **given):
    model = bert()
    for data in tasks:
        made = trainer(model, data, tmp_path, **given)
        if memory is not None:
            memory.attach(made)
        made.train()
    return model


def test_replay_keeps_the_first_task(tmp_path):
    naive, memory = taught(None, tmp_path), Remember(replay=32)
    kept = taught(memory, tmp_path)
    assert accuracy(naive, TEST[0]) < 0.1
    assert min(accuracy(kept, data) for data in TEST) > 0.9
    assert len(memory.kept) == 32
    labels = memory.kept.state["rows"]["labels"].unique()
    assert labels.tolist() == [0, 1, 2, 3]


def test_first_training_is_that_of_the_trainer_alone(tmp_path):
    plain = taught(None, tmp_path, tasks=(FIRST,))
    for memory in (Remember(replay=32), Remember(ewc=10.0), Remember(ewc=10.0, form="explicit")):
        with_it = taught(memory, tmp_path, tasks=(FIRST,))
        assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), with_it.parameters(), strict=True))


# --- exactly the gradient of the sum


class Watcher(TrainerCallback):
    """The gradient that the optimiser is about to use, and the weights it starts from."""

    def __init__(self):
        self.seen = []

    def on_pre_optimizer_step(self, args, state, control, *, model, **_):
        self.seen.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


def first_step(model, memory, tmp_path, **given):
    """The gradient of the first step of a training that sees all of SECOND at once."""
    watcher = Watcher()
    made = trainer(copy.deepcopy(model), SECOND, tmp_path, max_steps=1, max_grad_norm=0.0, **given)
    if memory is not None:
        copy.copy(memory).attach(made)
    made.add_callback(watcher)
    made.train()
    return watcher.seen[0]


def both(a, b):
    return all(torch.allclose(a[n], b[n], atol=1e-5, rtol=1e-4) for n in a)


@pytest.mark.parametrize("pieces", [1, 4])
def test_replay_adds_its_gradient_once_a_step(tmp_path, pieces):
    """The memory holds 16 rows and 16 are drawn, so that what is added is known: the gradient of their mean loss."""
    memory = Remember(replay=16)
    model = taught(memory, tmp_path, tasks=(FIRST,))
    held = Kept(16)
    held.load(copy.deepcopy(memory.kept.save()))
    given = {"per_device_train_batch_size": 64 // pieces, "gradient_accumulation_steps": pieces}
    plain, with_it = (first_step(model, each, tmp_path, **given) for each in (None, memory))
    model.zero_grad()
    model.train()(**collate(items_of(held.batch(torch.arange(16)), FIRST[0]))).loss.backward()
    own = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert both({n: plain[n] + own[n] for n in own}, with_it)
    assert not both(plain, with_it)


def test_the_penalty_is_half_lambda_fisher_times_the_squared_way(tmp_path):
    memory = Remember(ewc=50.0, form="explicit")
    model = taught(memory, tmp_path, tasks=(FIRST,))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)
    held = copy.deepcopy(memory.anchor.state["importance"])
    plain, with_it = (first_step(model, each, tmp_path, per_device_train_batch_size=64) for each in (None, memory))
    assert "model.bert.embeddings.word_embeddings.weight" not in held
    assert "model.bert.encoder.layer.0.attention.self.query.weight" in held
    wanted = {n: g + 50.0 * held[f"model.{n}"] * 0.1 if f"model.{n}" in held else g for n, g in plain.items()}
    assert both(wanted, with_it)
    assert not both(plain, with_it)


def test_the_fisher_is_a_mean_of_squares_over_rows(tmp_path):
    memory = Remember(ewc=1.0, fisher="true")
    model = taught(memory, tmp_path, tasks=(FIRST,)).eval()
    name = "bert.encoder.layer.1.output.dense.weight"
    weight, total = dict(model.named_parameters())[name], 0.0
    for item in FIRST.items:
        (slope,) = torch.autograd.grad(model(**collate([item])).loss, weight)
        total = total + slope.square() / len(FIRST)
    assert torch.allclose(memory.anchor.state["importance"][f"model.{name}"], total, rtol=1e-3, atol=1e-9)


def test_the_pull_is_the_proximal_step(tmp_path):
    """Steps of a rate by which nothing else moves visibly: theta <- (theta + k A c) / (1 + k A), k = lambda lr."""
    memory = Remember(ewc=1e9)
    model = taught(memory, tmp_path, tasks=(FIRST,))
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for p in moved.parameters():
            p.add_(0.1)
    given = {"learning_rate": 1e-7, "lr_scheduler_type": "constant", "weight_decay": 0.0}
    made = trainer(moved, SECOND, tmp_path, max_steps=1, **given)
    held, centre = (copy.deepcopy(memory.anchor.state[key]) for key in ("importance", "weights"))
    memory.attach(made)
    made.train()
    for name, p in moved.named_parameters():
        k = 100.0 * held.get(f"model.{name}", torch.zeros(()))
        wanted = p.detach() * 0 + dict(model.named_parameters())[name].detach() + 0.1
        wanted = (wanted + k * centre[f"model.{name}"]) / (1 + k) if f"model.{name}" in centre else wanted
        assert torch.allclose(p, wanted, atol=1e-5), name


def test_ewc_holds_an_old_task_that_shares_its_labels(tmp_path):
    """The second task has the same two labels at the second token, and draws the first token at random."""
    second = Rows([second_token(item, i) for i, item in enumerate(FIRST.items)])
    naive, held = (taught(memory, tmp_path, tasks=(FIRST, second)) for memory in (None, Remember(ewc=1e5)))
    assert accuracy(naive, TEST[0]) < 0.7
    assert accuracy(held, TEST[0]) > accuracy(naive, TEST[0]) + 0.2


def second_token(item, i):
    return {"input_ids": [1 + i // 2 % 2, 3 + item["labels"], *item["input_ids"][1:]], "labels": item["labels"]}


# --- rows, their names and their deletion


def test_rows_come_back_as_they_were():
    memory = Kept(10)
    for turn, data in enumerate((rows([0, 1], seed=4, n=6), rows([2], seed=5, n=4))):
        names = np.array([f"{turn}-{i}" for i in range(len(data))])
        memory.offer(Raw(data, names).batch(torch.arange(len(data))), seed=turn)
        for name, item in zip(memory.ids, items_of(memory.batch(torch.arange(len(memory))), data[0]), strict=True):
            if name.startswith(f"{turn}-"):
                assert item == data[int(name.partition("-")[2])]
    assert sorted(memory.ids) == sorted([f"0-{i}" for i in range(6)] + [f"1-{i}" for i in range(4)])


def test_forgetting_reaches_the_folder(tmp_path):
    folder = tmp_path / "memory"
    memory = Remember(replay=64, ewc=1.0, folder=folder)
    taught(memory, tmp_path / "out", tasks=(FIRST,), max_steps=1)
    receipt = memory.forget(["1-3", "1-7"])
    assert str(receipt).splitlines() == [
        "2 rows forgotten",
        "  Kept replay: 2 rows removed",
        "  weights: not changed: what they learned of the rows stays",
        "  still there: Anchor",
    ]  # fmt: skip
    again = Remember(replay=64, ewc=1.0, folder=folder)
    assert sorted(again.kept.ids) == sorted({f"1-{i}" for i in range(64)} - {"1-3", "1-7"})
    assert (again.turn, len(again.learned)) == (1, 62)
    assert len(list((folder / "files").iterdir())) == 1
    for name, value in memory.anchor.state["importance"].items():
        assert torch.equal(value, again.anchor.state["importance"][name])
    with pytest.raises(BadInput, match="1 were never learned"):
        again.forget(["1-3"])


def test_a_row_that_has_a_name_is_taken_in_once(tmp_path):
    memory, data = Remember(replay=100), rows([0, 1], seed=0, n=16, ids=list(range(100, 116)))
    taught(memory, tmp_path, tasks=(data, data), max_steps=1)
    assert (memory.turn, len(memory.kept), sorted(memory.learned)) == (1, 16, [str(i) for i in range(100, 116)])
    assert "1 rows forgotten" in str(memory.forget([103]))


def test_a_folder_of_other_settings_is_refused(tmp_path):
    memory = Remember(replay=8, folder=tmp_path / "memory")
    taught(memory, tmp_path, tasks=(FIRST,), max_steps=1)
    with pytest.raises(BadInput, match="made with replay = 8; this learner has 9"):
        Remember(replay=9, folder=tmp_path / "memory")


@pytest.mark.parametrize("given", [{}, {"replay": -1}, {"ewc": -1.0, "replay": 3}])
def test_nothing_to_do_is_refused(given):
    with pytest.raises(BadInput, match="give rows to keep"):
        Remember(**given)


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BadInput, match=r"transformers is not installed; run: pip install 'oblivio\[hf\]'"):
        _ = interop.Remember


class Streamed(IterableDataset):
    def __iter__(self):
        return iter(FIRST.items)


def test_what_cannot_be_kept_is_refused(tmp_path):
    words = Rows([{**item, "text": "a word"} for item in FIRST.items])
    with pytest.raises(BadInput, match="'text' holds str"):
        Raw(words, np.arange(3).astype(str))
    with pytest.raises(BadInput, match="are tuple; replay needs dicts"):
        Raw(Rows([(1, 2)]), np.array(["0"]))
    with pytest.raises(BadInput, match="streamed has no rows"):
        taught(Remember(replay=3), tmp_path, tasks=(Streamed(),), max_steps=1)
    memory = Kept(4)
    memory.offer(Raw(FIRST, np.array(["0"])).batch(torch.arange(1)), seed=0)
    other = Rows([{"labels": 1}])
    with pytest.raises(BadInput, match="the rows have labels, those kept before"):
        memory.offer(Raw(other, np.array(["1"])).batch(torch.arange(1)), seed=0)


def test_ewc_is_for_classifiers(tmp_path):
    pairs = Rows([{**item, "labels": [item["labels"]] * 2} for item in FIRST.items])
    model = bert()
    model.config.problem_type, model.num_labels = "regression", 4
    made = trainer(model, pairs, tmp_path, max_steps=1)
    made.compute_loss_func = lambda out, labels, num_items_in_batch=None: out.logits.square().mean()
    Remember(ewc=1.0).attach(made)
    with pytest.raises(BadInput, match="classifiers with one label a row"):
        made.train()


def test_a_set_of_the_datasets_library_names_its_rows(tmp_path):
    """Its column ``id`` is taken away before the model sees it, and is there for a deletion request."""
    import datasets
    from transformers import default_data_collator

    items = [{"id": 500 + i, "input_ids": [1 + i % 2, 6, 7], "label": i % 2} for i in range(12)]
    data, memory = datasets.Dataset.from_list(items), Remember(replay=12, ewc=1.0)
    model = bert()
    for turn in range(2):
        made = trainer(model, data.map(lambda row, turn=turn: {"id": row["id"] + 100 * turn}), tmp_path, max_steps=1)
        made.data_collator = default_data_collator
        memory.attach(made)
        made.train()
    assert sorted(memory.learned) == [str(i) for i in (*range(500, 512), *range(600, 612))]
    assert set(memory.kept.columns) == {"input_ids", "input_ids#length", "label"}
    held = memory.kept.ids.tolist()
    assert "  Kept replay: 1 rows removed" in str(memory.forget([int(held[0])]))
    assert held[0] not in memory.kept.ids
