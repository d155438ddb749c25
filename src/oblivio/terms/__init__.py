"""Terms that several methods share. Each names the source it reads and gives one value an example."""

from oblivio.terms.distill import distill
from oblivio.terms.fit import fit
from oblivio.terms.loreun import memorised
from oblivio.terms.npo import npo
from oblivio.terms.relabel import relabel
from oblivio.terms.sam import sam

__all__ = ["distill", "fit", "memorised", "npo", "relabel", "sam"]
