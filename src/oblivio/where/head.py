"""The head: the layer behind the features."""

from __future__ import annotations

from oblivio.core.problem import Problem
from oblivio.core.where import Selection, Where


class Head(Where):
    """The weights of the last linear layer, or of the one that the problem names; all that was grown onto it too."""

    def select(self, problem: Problem) -> Selection:
        return dict.fromkeys(problem.weights(f"{problem.features}.*"))
