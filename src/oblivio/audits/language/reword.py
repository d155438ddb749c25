"""Rewording (C-BOD): whether a model knows what it is asked, or the words it is asked in."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from oblivio.core.errors import BadInput

FEW = 25  # discordant items, below which the test is exact
ALPHA = 0.05
TIE = 1e-6  # scores nearer than this are equal


@dataclass(frozen=True)
class Reworded:
    """A paired test of the same items in their own words and in others.

    Attributes:
        b: items that score higher in their own words.
        c: items that score higher in other words.
        items: all of them; what is in neither b nor c is a tie.
        chi2: McNemar's ``(b - c)^2 / (b + c)``, 0 where there is no such item.
        p: of that on one degree of freedom, of an exact binomial test where b + c < 25, 1 where b + c = 0.
        score: mean in their own words.
        reworded: mean in other words.
    """

    b: int
    c: int
    items: int
    chi2: float
    p: float
    score: float
    reworded: float

    @property
    def difference(self) -> int:
        """``b - c``."""
        return self.b - self.c

    @property
    def drop(self) -> float | None:
        """The relative drop in percent; None where nothing could drop."""
        return 100 * (self.score - self.reworded) / self.score if self.score else None

    @property
    def overfit(self) -> bool:
        """It knows the words: significantly better in those it was taught in."""
        return self.p < ALPHA and self.b > self.c

    @property
    def superficial(self) -> bool:
        """Of a forget set after unlearning: the words were forgotten, and the fact is recalled in others."""
        return self.p < ALPHA and self.c > self.b


def c_bod(original: Tensor, reworded: Tensor, tie: float = TIE) -> Reworded:
    """Compare scores of items in their own words with those in other words (Cohen-Inger et al., 2025).

    Args:
        original: a score of each item, shape (n,): 1 or 0 for right and wrong, or a probability.
        reworded: of the same items reworded, shape (n,), or (n, k) of k rewordings each. Rewordings of one item are not
            independent, so that their mean counts once.
        tie: scores that differ by no more are equal.

    Raises:
        BadInput: no items, or other items on the two sides.
    """
    if original.dim() != 1 or not len(original) or len(reworded) != len(original) or reworded.dim() not in (1, 2):
        raise BadInput(f"scores have shapes {tuple(original.shape)} and {tuple(reworded.shape)}; give (n,), and (n,) "
                       "or (n, rewordings) of the same items")  # fmt: skip
    first, second = original.double(), reworded.double().reshape(len(reworded), -1).mean(1)
    b, c = int((first - second > tie).sum()), int((second - first > tie).sum())
    chi2 = (b - c) ** 2 / (b + c) if b + c else 0.0
    return Reworded(b, c, len(first), chi2, _p(b, c, chi2), float(first.mean()), float(second.mean()))


def _p(b: int, c: int, chi2: float) -> float:
    from scipy import stats

    if b + c == 0:
        return 1.0
    return float(stats.binomtest(b, b + c).pvalue if b + c < FEW else stats.chi2.sf(chi2, 1))
