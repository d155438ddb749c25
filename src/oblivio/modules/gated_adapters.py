"""GatedAdapters: a language model with LoRA adapters whose strength a detector sets for every text."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.surgery import Networks, Wrap, surgery
from oblivio.modules.adapters import adapters, add_adapter
from oblivio.modules.logit_difference import continued

PREFIX = "request"  # adapters are called request0, request1, ...
FULL, HALF = 0.32, 0.2  # from the first on a weight counts as 1, below the second as 0


class Detector(nn.Module):
    """How much a prompt looks like those of one request, from the mean hidden states of the model itself.

    Of block l the score is ``s_l = -(z - m)^T P (z - m) / 2 + 1000 max_j cos(z, F_j)`` with the mean m, the precision P
    and the unit features F of the request's prompts; a linear one-class SVM makes ``v = a s + b`` of all blocks. The
    weight comes from where v lies between two normals, of prompts that were fitted and of prompts that were held out.

    The card of O3 has the cosine with a minus: then the two parts cancel for texts a little way off, and a tenth of
    retained prompts passed for forgotten ones. P is never formed: with a shrunken covariance it is
    ``(I - U diag(k) U^T) / floor``.
    """

    mean: Tensor
    features: Tensor
    directions: Tensor
    shrink: Tensor
    floor: Tensor
    coefficients: Tensor
    offset: Tensor
    levels: Tensor
    marker: Tensor

    def __init__(self, layers: int, rows: int, width: int, marker: int) -> None:
        super().__init__()
        shapes = {
            "mean": (layers, width), "features": (layers, rows, width), "directions": (layers, rows, width),
            "shrink": (layers, rows), "floor": (layers,), "coefficients": (layers,), "offset": (), "levels": (3,),
        }  # fmt: skip
        for name, shape in shapes.items():
            self.register_buffer(name, torch.ones(shape, dtype=torch.float64))
        self.register_buffer("marker", torch.zeros(marker, dtype=torch.long))

    def scores(self, z: Tensor) -> Tensor:
        """The scores s of every block, shape (n, layers), from mean hidden states (n, layers, width)."""
        away = z.double() - self.mean
        along = torch.einsum("lkd,nld->nlk", self.directions, away).square()
        distance = (away.square().sum(2) - (self.shrink * along).sum(2)) / self.floor
        unit = nn.functional.normalize(z.double(), dim=2)
        return -distance / 2 + 1000 * torch.einsum("ljd,nld->nlj", self.features, unit).amax(2)

    def value(self, z: Tensor) -> Tensor:
        """One value v a row, shape (n,)."""
        return self.scores(z) @ self.coefficients + self.offset

    def weight(self, z: Tensor) -> Tensor:
        """How strongly the adapters act on every row, between 0 and 1; shape (n,)."""
        return soft_weight(self.value(z), self.levels)


def soft_weight(v: Tensor, levels: Tensor) -> Tensor:
    """1 where v is as it is for a request's own prompts, 0 far from them on either side.

    With F the mixture of two normals of means m1, m2 and one deviation (``levels``), and x0 in the middle of them,
    ``q = 1 - |F(v) - F(2 x0 - v)|`` and ``w = sigmoid(10 q - 2)``; from 0.32 on it counts as 1, below 0.2 as 0, between
    as 10 w^2, at most 1.
    """
    m1, m2, deviation = levels.unbind()

    def mixture(x: Tensor) -> Tensor:
        normal = torch.special.ndtr
        return (normal((x - m1) / deviation) + normal((x - m2) / deviation)) / 2

    inside = 1 - (mixture(v) - mixture(m1 + m2 - v)).abs()
    weight = torch.sigmoid(10 * inside - 2)
    return torch.where(weight >= FULL, 1.0, torch.where(weight >= HALF, (10 * weight.square()).clamp(max=1), 0.0))


class GatedAdapters(Wrap):
    """``forward`` has all adapters at full strength, ``predict`` for every row at that of the detectors.

    A row's weight is the greatest that a detector gives its prompt: the text up to and with the first place where the
    detector's marker stands (what all prompts of its request end in), or the whole of it. Padding is left out.
    """

    def __init__(self, model: nn.Module, pad: int) -> None:
        super().__init__()
        self.model, self.pad = model, pad
        self.detectors = nn.ModuleList()
        self.training = model.training

    @property
    def config(self) -> Any:
        """Of the model."""
        return self.model.config

    def forward(self, **inputs: Any) -> Any:
        """What the model computes with its adapters."""
        return self.model(**inputs)

    def predict(self, **inputs: Any) -> Tensor:  # type: ignore[override]
        """Logits (n, L, V), every row under its own weight."""
        weight = self.weights(inputs["input_ids"])
        with self.gated(weight):
            out = self.model(**inputs)
        logits: Tensor = getattr(out, "logits", out)
        return logits

    def generate(self, input_ids: Tensor, **settings: Any) -> Any:
        """What the model's own ``generate`` does, writing what ``predict`` finds likeliest.

        Where every prompt holds the markers its weight is known from the start, and keys and values are cached; else
        each step reads the whole text again.
        """
        model: Any = self.model
        if all(bool((ends(input_ids, each.marker) > 0).all()) for each in self.detectors):  # type: ignore[arg-type]
            with torch.no_grad(), self.gated(self.weights(input_ids)):
                return model.generate(input_ids=input_ids, **settings)
        from transformers import LogitsProcessorList

        given = settings.pop("logits_processor", None) or ()
        served = self._served(settings.get("attention_mask"))
        return model.generate(input_ids=input_ids, logits_processor=LogitsProcessorList([served, *given]), **settings)

    def _served(self, mask: Tensor | None) -> Any:
        """A step of decoding that puts the served logits in place of the model's."""
        from transformers import LogitsProcessor

        wrap = self

        class Served(LogitsProcessor):
            def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
                return wrap.predict(**continued(input_ids, mask))[:, -1].to(scores.dtype)

        return Served()

    def weights(self, ids: Tensor) -> Tensor:
        """How strongly the adapters act on every row, shape (n,); 0 where there is no detector yet."""
        if not len(self.detectors):
            return torch.zeros(len(ids), device=ids.device)
        states = self.states(ids)
        found = [each.weight(pooled(states, prompts(ids, each.marker, self.pad))) for each in self.detectors]  # type: ignore[operator,arg-type]
        return torch.stack(found).amax(0)

    @torch.no_grad()
    def states(self, ids: Tensor) -> Tensor:
        """Hidden states after every block, adapters off; shape (n, layers, L, width)."""
        with self.gated(torch.zeros(len(ids), device=ids.device)):
            out = self.model(input_ids=ids, output_hidden_states=True, use_cache=False)
        return torch.stack(out.hidden_states[1:], 1)  # the embedding left out

    @contextlib.contextmanager
    def gated(self, weight: Tensor) -> Iterator[None]:
        """While it runs each row's adapters are multiplied by its weight; beams share that of their prompt."""

        def scale(_: nn.Module, __: Any, out: Tensor) -> Tensor:
            mine = weight.repeat_interleave(len(out) // len(weight)).to(out.dtype)
            return out * mine.view(-1, *[1] * (out.dim() - 1))

        last = [m for n, m in self.model.named_modules() if n.rpartition(".")[0].endswith("lora_B")]
        handles = [module.register_forward_hook(scale) for module in last]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def pooled(states: Tensor, mine: Tensor) -> Tensor:
    """The mean of states (n, layers, L, width) over the tokens of a mask (n, L); shape (n, layers, width)."""
    total = (states.double() * mine[:, None, :, None]).sum(2)
    return total / mine.sum(1).clamp(min=1)[:, None, None]


def prompts(ids: Tensor, marker: Tensor, pad: int) -> Tensor:
    """Which tokens of a row are its prompt, a mask (n, L): up to the first marker, else all but padding at its ends."""
    real = ids != pad
    real = real.flip(1).cummax(1).values.flip(1) & real.cummax(1).values
    end = ends(ids, marker)[:, None]
    upto = torch.arange(ids.shape[1], device=ids.device) < end
    return torch.where(end > 0, real & upto, real)


def ends(ids: Tensor, marker: Tensor) -> Tensor:
    """Where the first marker of every row ends, shape (n,); 0 where there is none."""
    size = len(marker)
    if not size or size > ids.shape[1]:
        return torch.zeros(len(ids), dtype=torch.long, device=ids.device)
    here = (ids.unfold(1, size, 1) == marker).all(2)
    return torch.where(here.any(1), here.int().argmax(1) + size, 0)


def common_end(rows: Sequence[Sequence[int]]) -> list[int]:
    """The longest sequence that all rows end in."""
    end: list[int] = []
    for tokens in zip(*(reversed(row) for row in rows), strict=False):
        if len(set(tokens)) > 1:
            break
        end.insert(0, tokens[0])
    return end


@surgery
def gate(nets: MutableMapping[str, nn.Module], *, pad: int) -> None:
    """Put the model into a GatedAdapters, its weights then called ``model.…``; without detectors its answers stay."""
    nets["model"] = GatedAdapters(nets["model"], pad)


@surgery(appends=True)
def add_request(
    nets: MutableMapping[str, nn.Module], *, name: str, config: dict[str, Any], seed: int, layers: int, rows: int,
    width: int, marker: int,
) -> None:  # fmt: skip
    """Add the adapter ``name``, which does nothing yet, beside the earlier ones, and a detector to be filled."""
    wrap = gated(nets)
    add_adapter({"model": wrap.model}, name=name, config=config, seed=seed)
    for module in wrap.model.modules():
        if hasattr(module, "set_adapter") and hasattr(module, "lora_A"):
            module.set_adapter(list(adapters(wrap.model)))  # type: ignore[operator]
    wrap.detectors.append(Detector(layers, rows, width, marker))


def gated(nets: Networks) -> GatedAdapters:
    """The model, which ``gate`` has made. Raises BadInput where it is something else."""
    model = nets["model"]
    if not isinstance(model, GatedAdapters):
        raise BadInput(f"the model is {type(model).__name__}, not one with gated adapters")
    return model
