"""What was asked and said, for those who ask to see it: no report or log holds a text otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterator

from oblivio.audits.language.case import AUDITED, gather
from oblivio.audits.subjects import Subject
from oblivio.core.problem import Problem


def lines(problem: Problem) -> Iterator[str]:
    """A JSON object a text of every audited source: its id, the prompt, the true answer, and the model's own."""
    case = gather(problem, [Subject("outcome", "outcome", dict(problem.nets.items()))])
    (look,) = case.looks
    for name in AUDITED:
        if name in case.sheets:
            told = zip(case.texts(name), case.answered(name), look.written(name), strict=True)
            for text, true, said in told:
                facts = {"source": name, "id": text.id, "prompt": text.prompt, "true": true, "said": said}
                yield json.dumps(facts, ensure_ascii=False) + "\n"
