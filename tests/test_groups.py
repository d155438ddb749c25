"""Groups: what is drawn after a removal, the bound of mutual information, and what MIU refuses."""

from __future__ import annotations

from math import log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import flat, mlp, rows, same, state, step
from torch import Tensor

from oblivio import methods, terms
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import sgd
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.methods.unlearning.groups.miu import Average, add_critics, gap, mine
from oblivio.modules.features import features
from oblivio.sources import Joined, Weighted, group_ratio

FORGET, RETAIN = (0, 0, 0, 1), (0, 1, 1, 1, 2, 2)


def grouped(forget: tuple[int, ...] = FORGET, retain: tuple[int, ...] = RETAIN, seed: int = 0) -> Problem:
    """Rows of six columns with these groups; always the same weights."""
    torch.manual_seed(0)
    columns = {}
    for i, (name, of) in enumerate({"forget": forget, "retain": retain}.items()):
        x, y = rows(len(of), 6, seed=i)
        columns[name] = {"x": x, "y": y, "group": torch.tensor(of), "id": [100 * i + k for k in range(len(of))]}
    return Problem(mlp(), seed=seed, **columns)


# --- sources


def test_weights_are_counts_before_over_counts_after() -> None:
    of = grouped()
    weights = group_ratio("forget")(of, of.source("retain"))
    assert weights.tolist() == pytest.approx([4 / 1, 4 / 3, 4 / 3, 4 / 3, 1, 1])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_weights_bring_back_the_counts_of_each_group(kept: list[int], gone: list[int]) -> None:
    kept = [*kept, *gone]  # so that no group is emptied
    of = grouped(tuple(gone) or (kept[0],), tuple(kept))
    weights = group_ratio("forget")(of, of.source("retain"))
    removed = gone or [kept[0]]
    for group in set(kept):
        restored = sum(w for w, g in zip(weights.tolist(), kept, strict=True) if g == group)
        assert restored == pytest.approx(kept.count(group) + removed.count(group))


def test_rows_are_drawn_in_proportion_and_epochs_stay_as_long() -> None:
    of = grouped()
    source, at = Weighted("retain", by=group_ratio("forget")), step(of)
    drawn: list[int] = []
    for t in range(2000):
        at.at_time(t)
        batch = of.source(source).draw(4, at)
        assert len(batch) == (4, 2)[t % 2]  # six rows an epoch
        drawn += batch["group"].tolist()
    shares = torch.tensor(drawn).bincount() / len(drawn)
    assert shares.tolist() == pytest.approx([0.4, 0.4, 0.2], abs=0.02)


def test_a_draw_depends_on_the_clock_alone() -> None:
    of, source = grouped(), Weighted("retain", by=group_ratio("forget"))
    at = step(of)
    first = of.source(source).draw(4, at).rows
    at.at_time(1)
    of.source(source).draw(4, at)
    at.at_time(0)
    assert torch.equal(of.source(source).draw(4, at).rows, first)


def test_a_weighted_source_is_read_and_compared_as_its_own() -> None:
    of = grouped()
    source = of.source(Weighted("retain", by=group_ratio("forget")))
    plain = of.source("retain")
    assert (source.ids == plain.ids).all()
    assert source.columns == plain.columns
    assert len(source) == 6
    assert torch.equal(torch.cat([b["x"] for b in source.batches(4)]), torch.cat([b["x"] for b in plain.batches(4)]))
    assert len(source.take([1, 2])) == 2
    assert source.comparable(of.source("forget")) == plain.comparable(of.source("forget"))


def test_a_group_that_is_gone_as_a_whole_is_refused() -> None:
    of = grouped(forget=(0, 5, 5))
    with pytest.raises(BadInput, match=r"no row of group \[5\] is left in 'retain'"):
        of.source(Weighted("retain", by=group_ratio("forget")))


def test_a_derived_source_has_no_rows_outside_a_problem() -> None:
    with pytest.raises(BadInput, match="only in a problem"):
        len(Joined("forget", "retain"))


def test_joined_rows_keep_their_columns_ids_and_part() -> None:
    of = grouped()
    source = of.source(Joined("forget", "retain"))
    batch = source.batch(torch.tensor([9, 0, 4, 3]))
    apart = [of.source("retain").batch(torch.tensor([5, 0])), of.source("forget").batch(torch.tensor([0, 3]))]
    assert batch["part"].tolist() == [1, 0, 1, 0]
    assert len(source) == 10
    assert torch.equal(
        batch["x"], torch.stack([apart[0]["x"][0], apart[1]["x"][0], apart[0]["x"][1], apart[1]["x"][1]])
    )
    assert batch["id"].tolist() == [105, 0, 100, 3]
    assert source.ids.tolist()[4:6] == [100, 101]
    with pytest.raises(BadInput, match="has no column 'z'"):
        batch["z"]
    with pytest.raises(BadInput, match="no views"):
        source.take([0])


# --- the piece


def test_the_piece_replaces_retain_in_terms_rules_and_epochs() -> None:
    loss = terms.sam(terms.fit("retain")) + terms.fit("forget")
    plan = methods.reweight()(Descent(loss, over="retain", epochs=1))
    assert repr(plan).count("Weighted('retain'") == 1
    assert "fit('forget')" in repr(plan)
    changed = plan.over  # type: ignore[attr-defined]
    assert isinstance(changed, Weighted)
    assert all(changed is on for on in plan.loss.reads if on != "forget")
    with pytest.raises(BadInput, match="trains on no source 'retain'"):
        methods.reweight()(methods.grad_ascent())


def test_the_piece_changes_what_is_trained_on_and_leaves_the_plan_alone() -> None:
    plan = methods.finetune(epochs=2)
    printed = repr(plan)
    done = [Run(each, grouped()).go() for each in (plan, methods.reweight()(plan))]
    assert repr(plan) == printed
    assert not same(*map(state, done))


# --- MIU


def prepared() -> Problem:
    return Run(add_critics(8), grouped()).go()


def bound(of: Problem, on: str = "retain", average: Average | None = None) -> tuple[mine, Tensor]:
    term = mine(on, "now", average or Average())
    return term, term(step(of, "*", taps=("model.2",)))


def test_the_bound_is_a_mean_minus_a_log_mean_exp() -> None:
    of = prepared()
    at = step(of, "*", taps=("model.2",))
    value = mine("retain", "now", Average())(at)
    z, own = torch.tanh(of.model[0](at.batch("retain")["x"])), at.batch("retain")["group"]  # type: ignore[index]
    drawn = torch.randint(3, (6,), generator=at.rng("retain/group"))
    critic = of.nets["critics"]["now"]  # type: ignore[index]
    expected = critic(z, own).mean() - critic(z, drawn).exp().mean().log()
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)


def test_its_gradient_divides_by_the_running_mean() -> None:
    of = prepared()
    at = step(of, "critics.now.*", taps=("model.2",))
    average = Average()
    average.state["log"] = torch.tensor(1.3)
    got = mine("retain", "now", average).grad(at)
    critic, z = of.nets["critics"]["now"], at.tap("retain", "features").detach()  # type: ignore[index]
    drawn = torch.randint(3, (6,), generator=at.rng("retain/group"))
    apart = critic(z, drawn).exp().mean()
    mean = 0.99 * torch.tensor(1.3).exp() + 0.01 * apart.detach()
    value = critic(z, at.batch("retain")["group"]).mean() - apart / mean
    expected = torch.autograd.grad(value, list(critic.parameters()))
    assert torch.allclose(
        flat(got), torch.cat([g.flatten() for _, g in sorted(zip(got, expected, strict=True))]), atol=1e-6
    )


def test_the_running_mean_changes_with_the_step_not_with_a_look() -> None:
    of, average = prepared(), Average(0.25)
    term, _ = bound(of, average=average)
    assert average.state == {}
    term.after(step(of))
    first = average.state["log"].exp().item()
    term._next = average.then(torch.tensor(0.0))
    term.after(step(of))
    assert average.state["log"].exp().item() == pytest.approx(0.75 * first + 0.25)


def test_a_gap_has_no_gradient_through_its_second_value() -> None:
    of = prepared()
    at = step(of, "*", taps=("model.2",))
    both = terms.fit("retain") + 3.0 * gap(mine("retain", "now", Average()), mine("retain", "start", Average()))
    assert not any("start" in name for name in both.grad(at))
    a, b = (mine("retain", name, Average())(at) for name in ("now", "start"))
    assert both(at).item() == pytest.approx((terms.fit("retain")(at) + 3 * (a - b).square()).item(), abs=1e-6)


def test_critics_find_a_group_that_the_features_show() -> None:
    g = torch.Generator().manual_seed(0)
    group = torch.arange(200) % 2
    x = torch.randn(200, 6, generator=g) * 0.3 + 4.0 * group[:, None] - 2.0
    half = {"x": x, "y": group, "group": group}
    of = Problem(
        mlp(outputs=2), retain={k: v[:150] for k, v in half.items()}, forget={k: v[150:] for k, v in half.items()}
    )
    average = Average()
    tune = Descent(-1 * mine("retain", "now", average), "critics.*", opt=sgd(0.05, 0.9), steps=300)
    done = Run(add_critics(32) >> tune, of).go()
    value = mine("retain", "now", Average())(step(done, "*", taps=("model.2",)))
    assert 0.4 < value.item() < log(2) + 0.15  # a balanced bit that is plain to see is worth log 2


@pytest.mark.parametrize("lacking", ["forget", "retain"])
def test_rows_without_groups_are_refused_before_a_weight_moves(lacking: str) -> None:
    of = grouped()
    columns = {name: of.source(lacking).batch(torch.arange(4))[name] for name in ("x", "y")}
    of = Problem(of.model, **{**{n: of.source(n) for n in ("forget", "retain")}, lacking: columns})
    before = state(of)
    for plan in (methods.miu(), methods.reweight()(methods.finetune())):
        with pytest.raises(BadInput, match=f"source '{lacking}' has no column 'group'; give every row"):
            Run(plan, of).go()
    assert same(before, state(of))


def test_features_of_the_start_are_those_of_the_snapshot_also_when_the_model_has_moved() -> None:
    of = prepared()
    of.keep("start")
    before = features(of, "retain")
    with torch.no_grad():
        for weight in of.model.parameters():
            weight.add_(0.1)
    at = step(of, "*", taps=("model.2",))
    term = mine("retain", "start", Average(), at="start")
    assert torch.equal(term._features(at), before[at.batch("retain").rows])
    assert not torch.equal(features(of, "retain"), before)
