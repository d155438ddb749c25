"""Terms that several methods share. Each names the source it reads and gives one value an example."""

from oblivio.terms.anchor import Anchor, Fisher, Ones, penalty
from oblivio.terms.distill import distill
from oblivio.terms.elr import elr
from oblivio.terms.fit import fit
from oblivio.terms.imitate import imitate
from oblivio.terms.loreun import memorised, memorised_at_start
from oblivio.terms.match import match
from oblivio.terms.npo import npo
from oblivio.terms.relabel import relabel
from oblivio.terms.sam import sam
from oblivio.terms.toward import toward
from oblivio.terms.weights import l2, l2_init, spectral, wasserstein
from oblivio.terms.when import later

__all__ = [
    "Anchor",
    "Fisher",
    "Ones",
    "distill",
    "elr",
    "fit",
    "imitate",
    "l2",
    "l2_init",
    "later",
    "match",
    "memorised",
    "memorised_at_start",
    "npo",
    "penalty",
    "relabel",
    "sam",
    "spectral",
    "toward",
    "wasserstein",
]
