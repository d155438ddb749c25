"""Language models at scale: shards, adapters with recomputed activations, packed rows, references without a copy."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, inject_adapter_in_model

from oblivio import terms, where
from oblivio.bench import language as bench
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adamw
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.step import Step
from oblivio.core.team import Team, gather
from oblivio.modules.sharded import units
from oblivio.networks.language import gpt2, llama, mixtral, open_model
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import CausalLM, checkpointed

# --- two processes, each with a shard

JOB = '''
"""Each plan on shards and, in the same process, whole; the first process writes what was found."""
import json, sys
from pathlib import Path
import torch
from oblivio import how, terms, where
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput, Stopped
from oblivio.core.importance import fisher
from oblivio.core.opt import adamw, sgd
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.core.shards import gathered, is_sharded
from oblivio.core.step import Step
from oblivio.core.team import ALONE, gather
from oblivio.core.term import term
from oblivio.networks.language import llama, save_model, word_tokenizer
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import CausalLM

torch.set_num_threads(1)
out = Path(sys.argv[1])
shards, copies = gather(2, device="cpu", sharding="full"), gather(2, device="cpu")
tokenizer = word_tokenizer([" ".join(f"w{i}" for i in range(40))])


def rows(n, seed):
    g = torch.Generator().manual_seed(seed)
    length = lambda: int(torch.randint(5, 10, (1,), generator=g))
    return Tokens([torch.randint(3, 43, (length(),), generator=g).tolist() for _ in range(n)], [3] * n)


forget, retain = rows(8, 1), rows(13, 2)  # 13 in fours: the last batch has one row, which one process lacks
NPO, FIT = terms.npo("forget", 0.5), terms.fit("retain")


@term(whole=True)
def penalty(step, of):
    return sum(g.square().sum() for g in step.grad(of, graph=True).values())


def descent(loss, **given):
    return Descent(loss, **{"opt": adamw(1e-3), "steps": 4, "batch": 4, **given})


def made(team, **task):
    net = llama(43, layers=2, width=16, heads=2, ff=32, tied=True)
    return Problem(net, task=CausalLM(**task), forget=forget, retain=retain, team=team)


def held(tensors):
    """How many numbers this process holds, and how many there are."""
    tensors = list(tensors)
    return [sum((t.to_local() if is_sharded(t) else t).numel() for t in tensors), sum(t.numel() for t in tensors)]


def refused(work):
    try:
        work()
    except BadInput as error:
        return str(error)
    return "accepted"


plans = {
    "npo and retain": (descent(NPO + FIT, how=how.clip(0.5)), {}),
    "chunks, packed": (descent(NPO + FIT, chunk=1), {"pack": True}),
    "a rule, and logits of the start": (descent(terms.sam(FIT, rho=0.5) + terms.distill("forget")), {}),
    "masks and momentum": (descent(NPO, where=where.saliency(terms.fit("forget"), 0.5), opt=sgd(0.01, 0.9)), {}),
    "an adapter, recomputed": (descent(NPO + FIT, where=where.lora(r=2), opt=adamw(1e-2)), {"checkpointing": True}),
}
apart, moved, local, folders = {}, {}, {}, {}
for name, (plan, task) in plans.items():
    parts, whole = made(shards, **task), made(ALONE, **task)
    local[name] = held(parts.weights().values())
    start = {n: w.detach().clone() for n, w in whole.weights().items()}
    Run(plan, parts).go()
    Run(plan, whole).go()
    mine = gathered(parts.weights(), keep=True)
    apart[name] = max(float((mine[n] - w.detach()).abs().max()) for n, w in whole.weights().items())
    moved[name] = max(float((w.detach() - start[n]).abs().max()) for n, w in whole.weights().items() if n in start)
    if name == "npo and retain":
        save_model(out / "shards", parts.model, tokenizer)
        if shards.rank == 0:
            save_model(out / "whole", whole.model, tokenizer)
    if "adapter" in name:
        moved[name] = max(float(w.detach().abs().max()) for n, w in parts.weights("*lora_B*").items())
        save_model(out / "adapter", parts.model, tokenizer, base=out / "base")
        if shards.rank == 0:
            save_model(out / "base", made(ALONE).model, tokenizer)
            torch.save(whole.predict(whole.source("forget").take(torch.arange(4))), out / "logits.pt")

ddp, whole = made(copies), made(ALONE)
Run(plans["npo and retain"][0], ddp).go()
Run(plans["npo and retain"][0], whole).go()
apart["copies"] = max(float((w - ddp.weights()[n]).abs().max().detach()) for n, w in whole.weights().items())

# the fault that is known of the field's code, and what does not go
parts = made(shards)
weights = parts.weights("model.*")
batch = retain.batch(torch.arange(4))
loss = parts.task.each(parts.task.forward(parts.nets, "model", batch), batch).mean()
trap = [g is None for g in torch.autograd.grad(loss, list(weights.values()), allow_unused=True)]
grads = Step(parts, "here", dict.fromkeys(weights), 4).grad(terms.fit("retain"))
found = [float(g.full_tensor().abs().max()) for g in grads.values()]
words = {
    "graph": refused(lambda: Run(descent(penalty(terms.fit("forget"))), parts).go()),
    "copy": refused(parts.copy),
    "rows": refused(lambda: fisher(parts, "forget")),
    "folder": refused(lambda: save_model(out / "shards", parts.model, tokenizer)),
}


# a run that is stopped goes on to the same bits
def stop(run, stage, step):
    if run.steps == 3:
        raise Stopped("here")


straight, moments = made(shards), {}


def look(run, stage, step):
    moments["held"] = held(v for state in step.opt.save().values() for v in state.values() if v.dim())


Run(plans["npo and retain"][0], straight, watch=[look]).go()
broken = made(shards)
try:
    Run(plans["npo and retain"][0], broken, out / "run", every=0, watch=[stop]).go()
except Stopped:
    pass
resumed = made(shards)
run = Run(plans["npo and retain"][0], resumed, out / "run", every=0).resume()
at = run.steps
run.go()
same = all(torch.equal(a.to_local(), resumed.weights()[n].to_local()) for n, a in straight.weights().items())
told = {"apart": apart, "moved": moved, "local": local, "trap": trap, "found": found, "words": words,
        "resumed": [at, same], "moments": moments["held"]}
everyone = [None, None]
torch.distributed.all_gather_object(everyone, told)
if shards.rank == 0:
    (out / "out.json").write_text(json.dumps(everyone))
shards.wait()
'''

CASES = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes on this machine write."""
    place = tmp_path_factory.mktemp("shards")
    (place / "job.py").write_text(JOB)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with subprocess.Popen(
        [*command, "job.py", str(place)], env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
        start_new_session=True, cwd=place,
    ) as job:  # fmt: skip
        try:
            words = job.communicate(timeout=240)[1]
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)  # the launcher and both processes
            raise
    assert (place / "out.json").exists(), words[-3000:]
    return place


@pytest.fixture(scope="module")
def told(folder: Path) -> list[dict]:
    return json.loads((folder / "out.json").read_text())


def test_each_process_holds_a_shard_only(told: list[dict]) -> None:
    """Half of every weight and of its moments, up to rows that two cannot share equally."""
    for name in told[0]["local"]:
        (a, of), (b, _) = (each["local"][name] for each in told)
        assert a + b == of
        assert max(a, b) < 0.52 * of
    for each in told:
        held, of = each["moments"]
        assert 0.48 * of < held < 0.52 * of


def test_shards_end_where_one_process_ends(told: list[dict]) -> None:
    for each in told:
        assert len(each["apart"]) == CASES + 1
        assert {name: value for name, value in each["apart"].items() if value > 1e-5} == {}
        assert min(each["moved"].values()) > 1e-3


def test_gradients_arrive_where_autograd_finds_none(told: list[dict]) -> None:
    for each in told:
        assert all(each["trap"])  # if this fails torch has changed: gradients of shards could be asked for by name
        assert min(each["found"]) > 0


def test_the_saved_folder_is_that_of_whole_weights(folder: Path, told: list[dict]) -> None:
    (a, tokenizer), (b, _) = (open_model(folder / name) for name in ("shards", "whole"))
    assert len(tokenizer) == 43
    assert type(a) is type(b)
    assert a.get_input_embeddings().weight is a.get_output_embeddings().weight  # still tied
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours.keys() == theirs.keys()
    assert max(float((ours[n] - theirs[n]).abs().max()) for n in ours) < 1e-5
    first, second = (json.loads((folder / name / "config.json").read_text()) for name in ("shards", "whole"))
    assert first == second


def test_the_saved_adapter_is_that_of_whole_weights(folder: Path, told: list[dict]) -> None:
    model, _ = open_model(folder / "adapter")
    g = torch.Generator().manual_seed(1)
    rows = []
    for _ in range(8):
        n = int(torch.randint(5, 10, (1,), generator=g))
        rows.append(torch.randint(3, 43, (n,), generator=g).tolist())
    problem = Problem(model, task=CausalLM(), forget=Tokens(rows[:4], [3] * 4))
    torch.testing.assert_close(
        problem.predict("forget"), torch.load(folder / "logits.pt", weights_only=True), atol=1e-5, rtol=1e-5
    )


def test_what_needs_whole_weights_says_so(told: list[dict]) -> None:
    words = told[0]["words"]
    assert "a gradient that is differentiated again needs whole weights" in words["graph"]
    assert "sharded weights are not copied" in words["copy"]
    assert "gradients of single rows need whole weights" in words["rows"]
    assert "holds something" in words["folder"]


def test_a_stopped_run_of_shards_goes_on_to_the_same_bits(told: list[dict]) -> None:
    for each in told:
        at, same = each["resumed"]
        assert at == 2  # the step at which it stopped had no checkpoint yet
        assert same


def test_sharding_needs_somebody_to_share_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(BadInput, match="spreads weights over processes, and 1 started"):
        gather(sharding="full")
    with pytest.raises(BadInput, match="sharding='some' is unknown"):
        gather(sharding="some")


def test_units_are_the_blocks() -> None:
    """Experts within a block are gathered with it."""
    for model in (llama(40, layers=3), gpt2(40, layers=3), mixtral(40, layers=3)):
        assert [type(unit).__name__ for unit in units(model)] == [type(units(model)[0]).__name__] * 3
        assert not any("MLP" in type(unit).__name__ for unit in units(model))
    assert units(torch.nn.Linear(2, 2)) == []


# --- one process

WORDS = 40


def rows(lengths: list[int], seed: int = 0) -> Tokens:
    g = torch.Generator().manual_seed(seed)
    return Tokens([torch.randint(3, WORDS, (n,), generator=g).tolist() for n in lengths], [2] * len(lengths))


FORGET, RETAIN = rows([5, 9, 6, 7], 1), rows([8, 4, 6, 5, 7, 9], 2)
NETS = {make.__name__: make(WORDS, layers=2, width=16, heads=2) for make in (llama, gpt2, mixtral)}


def problem(net=None, **task) -> Problem:
    net = llama(WORDS, layers=2, width=16, heads=2, ff=32) if net is None else net
    return Problem(copy.deepcopy(net), task=CausalLM(**task), forget=FORGET, retain=RETAIN)


def ended(loss, of: Problem, place="model.*", steps=4) -> dict[str, torch.Tensor]:
    Run(Descent(loss, where=place, opt=adamw(1e-2), steps=steps, batch=4), of).go()
    return {n: w.detach() for n, w in of.weights().items()}


def far(a, b) -> float:
    return max(float((a[n] - b[n]).abs().max()) for n in a)


OBJECTIVE = terms.npo("forget", 0.5) + terms.fit("retain")


@settings(max_examples=8, deadline=None)
@given(lengths=st.lists(st.integers(3, 12), min_size=1, max_size=5), name=st.sampled_from(sorted(NETS)))
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_are_rows(attention: str, lengths: list[int], name: str) -> None:
    """The same logits where they count, the same gradients; zeros at padding."""
    net, source = copy.deepcopy(NETS[name]), rows(lengths)
    net.set_attn_implementation(attention)
    batch = source.batch(torch.arange(len(lengths)))
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    found = []
    for pack in (False, True):
        of = Problem(net, task=CausalLM(pack=pack), rows=source)
        with torch.no_grad():
            found.append((of.task.forward(of.nets, "model", batch), of.gradient(terms.fit("rows"))))
    (plain, want), (packed, got) = found
    torch.testing.assert_close(packed[real], plain[real], atol=1e-5, rtol=1e-5)
    assert not bool(packed[~real].any())
    assert far(want, got) < 1e-5


def test_packed_rows_do_not_see_each_other() -> None:
    """Another first row changes nothing of the second."""
    of, logits = problem(pack=True), []
    for first in ([4, 5, 6, 7], [9, 8, 30]):
        source = Tokens([first, [4, 5, 6, 7, 8]], [1, 1])
        with torch.no_grad():
            logits.append(of.task.forward(of.nets, "model", source.batch(torch.arange(2)))[1, :5])
    torch.testing.assert_close(*logits, atol=1e-6, rtol=1e-6)


def test_a_packed_run_is_the_run() -> None:
    assert far(ended(OBJECTIVE, problem()), ended(OBJECTIVE, problem(pack=True))) < 1e-5


def test_a_share_without_rows_makes_the_pass() -> None:
    """Another process may wait in it for this one's shards; what comes out has a gradient, which is zero."""
    for task in ({}, {"pack": True}):
        of = problem(**task)
        nothing = FORGET.batch(torch.arange(0))
        value = of.task.each(of.task.forward(of.nets, "model", nothing), nothing).sum()
        value.backward()
        assert float(value.detach()) == 0
        assert not any(bool(w.grad.any()) for w in of.nets.parameters() if w.grad is not None)


def test_adapters_learn_with_recomputed_activations() -> None:
    place = where.lora(r=2)
    without, recomputed = ended(OBJECTIVE, problem(), place), ended(OBJECTIVE, of := problem(checkpointing=True), place)
    assert all(getattr(block, "gradient_checkpointing", False) for block in of.model.model.layers)
    assert min(float(w.abs().max()) for n, w in recomputed.items() if "lora_B" in n) > 1e-3
    assert far(without, recomputed) < 1e-6


def test_the_other_form_of_recomputing_gives_adapters_nothing() -> None:
    """The silent fault: nothing before the first block needs a gradient, so none is made in it, without an error.

    Transformers helps itself with embeddings whose outputs need one; ours goes without that help.
    """
    net = llama(WORDS, layers=2, width=16, heads=2, ff=32)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj"]), net)
    for n, w in net.named_parameters():
        w.requires_grad_("lora_" in n)
    grads = []
    for reentrant in (True, False):
        other = copy.deepcopy(net).train()
        if reentrant:
            other.activation_checkpointing_enable({"use_reentrant": True})
            other.disable_input_require_grads()
            with pytest.warns(UserWarning, match="None of the inputs have requires_grad"):
                out = other(torch.arange(4)[None], use_cache=False).logits
            assert not out.requires_grad
        else:
            checkpointed(other)
            other.disable_input_require_grads()
            other(torch.arange(4)[None], use_cache=False).logits.logsumexp(2).sum().backward()
        grads.append([w.grad is not None for n, w in other.named_parameters() if "lora_B" in n])
    assert grads == [[False, False], [True, True]]


def test_other_weights_are_in_place_until_they_have_been_recomputed() -> None:
    """SAM differentiates at other weights; with the real ones back in place too soon it would be plain descent."""
    rule, plain = (t + terms.fit("retain") for t in (terms.sam(terms.fit("forget"), rho=0.5), terms.fit("forget")))
    whole, recomputed = ended(rule, problem()), ended(rule, problem(checkpointing=True))
    assert far(whole, recomputed) < 1e-6
    assert far(whole, ended(plain, problem())) > 1e-3
    own = problem()
    checkpointed(own.model)  # by whom it was asked for makes no difference
    assert far(whole, ended(rule, own)) < 1e-6


def test_a_graph_through_other_weights_cannot_be_recomputed() -> None:
    of = problem(checkpointing=True)
    step = Step(of, "here", dict.fromkeys(of.weights()), 4)
    live = step.at({n: w * 1.0 for n, w in step.weights.items()}, graph=True)
    with pytest.raises(BadInput, match="leave out sharding='full' and checkpointing=True"):
        live.out("forget")


def test_what_cannot_be_recomputed_says_so() -> None:
    with pytest.raises(BadInput, match="Linear cannot compute activations again"):
        checkpointed(torch.nn.Linear(2, 2))


def test_references_hold_no_second_model() -> None:
    """Logits of the start come from the adapter switched off; scores from a table of one number a row."""
    of = problem()
    many = sum(w.numel() for w in of.nets.parameters())
    start = of.predict("forget")
    ended(terms.distill("forget") + OBJECTIVE, of, where.lora(r=1))
    weights = of.weights()
    held = sum(t.numel() for kept in of.snapshots.values() for n, t in kept.items() if n in weights)
    added = sum(w.numel() for w in of.nets.parameters()) - many
    assert held == added < 0.4 * many
    assert [tuple(t.shape) for t in of.frozen.values()] == [(4,)]
    with torch.no_grad():
        batch = FORGET.batch(torch.arange(4))
        again = of.at("start", lambda nets: of.task.forward(nets, "model", batch))
    torch.testing.assert_close(again, start)
    assert far({"now": of.predict("forget")}, {"now": start}) > 1e-3


def test_half_precision_of_forwards_leaves_weights_in_full() -> None:
    of = problem()
    half = Problem(copy.deepcopy(of.model), task=CausalLM(), team=Team(precision="bf16"), forget=FORGET, retain=RETAIN)
    full, low = ended(OBJECTIVE, of), ended(OBJECTIVE, half)
    assert {w.dtype for w in low.values()} == {torch.float32}
    assert 0 < far(full, low) < 0.05


# --- the bench


def test_the_bench_counts_two_forwards_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    small = bench.Config(WORDS, (6, 9), {"layers": 1, "width": 16, "heads": 2}, rows=24, block=2, blocks=2, repeats=2)
    monkeypatch.setitem(bench.CONFIGS, "small", small)
    time, forwards = bench.rows("small")
    assert (forwards.value, forwards.limit) == (2, 2)
    assert len(time.repeats) == len(time.noise) == 2
    monkeypatch.setattr(bench.terms, "npo", lambda on, beta, real=terms.npo: 1.1 * real(on, beta))
    with pytest.raises(AssertionError, match="of their size apart"):  # the two sides do not compute the same
        bench.rows("small")


def test_a_bench_that_cannot_be_made() -> None:
    with pytest.raises(BadInput, match="no configuration '2b'; did you mean '1b'"):
        bench.rows("2b")
    if not torch.accelerator.is_available():
        with pytest.raises(BadInput, match="needs an accelerator"):
            bench.rows("1b")
