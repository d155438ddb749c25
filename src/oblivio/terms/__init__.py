"""Terms that several methods share. Each names the source it reads and gives one value an example."""

from oblivio.terms.distill import distill
from oblivio.terms.elr import elr
from oblivio.terms.fit import fit
from oblivio.terms.imitate import imitate
from oblivio.terms.loreun import memorised, memorised_at_start
from oblivio.terms.npo import npo
from oblivio.terms.relabel import relabel
from oblivio.terms.sam import sam
from oblivio.terms.toward import toward

__all__ = ["distill", "elr", "fit", "imitate", "memorised", "memorised_at_start", "npo", "relabel", "sam", "toward"]
