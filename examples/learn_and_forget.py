"""Learn three tasks, forget one user, learn on, and audit what came of it.

The digits come in five tasks of two classes. They are shared out among twenty users; user 17 writes in white where the
others write in black, and asks after the third task to be forgotten. The standard are courses that never had the user.

The accuracy on the user's rows is near zero in the end, with the request and without it: such a network forgets by
itself what it does not see again. The audit finds the user all the same. To be rid of them, learn again without them,
or use a learner that trains anew on its memory, such as ``gdumb``: what has left the memory is out of the next model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

import oblivio as ob
from oblivio.audits.report import Report
from oblivio.learners import Learner
from oblivio.sources import as_source

USERS, USER, DAY = 20, 17, 3  # user 17 of 20 leaves after the third task


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))


def own(ids: Any) -> Tensor:
    """Which rows are the user's."""
    return torch.as_tensor(ids) % USERS == USER


def digits() -> ob.data.Dataset:
    """The digits, those of the user in negative."""
    rows = ob.data.load("digits").train
    batch = rows.batch(torch.arange(len(rows)))
    x = torch.where(own(rows.ids)[:, None, None, None], 1 - batch["x"], batch["x"])
    return dataclasses.replace(ob.data.load("digits"), train=as_source((x, batch["y"], rows.ids)))


def without(experience: ob.data.Experience) -> ob.data.Experience:
    return dataclasses.replace(experience, rows=experience.rows.take(~own(experience.rows.ids)))


def course(experiences: Iterable[ob.data.Experience], seed: int) -> Learner:
    learner = ob.learner(network(seed), "er", buffer=200, epochs=10, seed=seed)
    for experience in experiences:
        learner.learn(experience)
    return learner


def main() -> Report:
    everything = digits()
    theirs = own(everything.train.ids)
    stream = ob.data.split(everything, tasks=5, scenario="class")
    never = [without(experience) for experience in stream.train]

    # 1. Three tasks, and the request: out of the memory, and out of the weights as far as a method can.
    learner = course(stream.train[:DAY], seed=0)
    came = torch.tensor([i in learner.ids for i in everything.train.ids.tolist()])
    print(learner.forget(everything.train.take(theirs & came), "npo"))

    # 2. Two tasks more, without the user.
    history = ob.data.History(stream.test)
    for experience in never[DAY:]:
        learner.learn(experience)
    history.record(learner, learned=range(5))
    print(f"average accuracy on the five tasks: {100 * history.metrics()['acc']:.1f}%\n")

    # 3. The original is a course that kept the user, the references are three that never had them; all are attacked.
    original = course(stream.train, seed=0).model
    references = [course(never, seed).model for seed in (1, 2, 3)]
    gone, rest = everything.train.take(theirs), everything.train.take(~theirs)
    problem = ob.Problem(original, forget=gone, retain=rest, test=everything.test)
    report = ob.audit(learner.model, problem, references=references, leave_out=["relearning"])
    print(report.table())
    return report


if __name__ == "__main__":
    main()
