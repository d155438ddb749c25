"""Causal tracing: which layer, put back as it was at which token, brings an answer back that noise had destroyed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from oblivio.core.errors import BadInput
from oblivio.core.seeds import generator
from oblivio.networks.language.parts import blocks, embedding, mlp_outputs
from oblivio.sources.tokens import Tokens
from oblivio.tasks.language import CausalLM, answer_log_probs, mean

Kind: TypeAlias = Literal["hidden", "mlp", "attention"]
Span: TypeAlias = tuple[int, int]


def trace(
    model: nn.Module, tokens: Tokens, subjects: Sequence[Span], *, kind: Kind = "mlp", noise: float = 3.0,
    samples: int = 10, window: int = 1, seed: int = 0,
) -> Tensor:  # fmt: skip
    """The indirect effect of every token and layer on the answers: restored less corrupted probability.

    The prompt is run clean; then with Gaussian noise on the embeddings of its subject; then so again, with the output
    of one layer at one token as in the clean run (Meng et al., 2022). A probability is the geometric mean over the
    answer's tokens, averaged over ``samples`` draws of noise.

    Args:
        model: a causal language model.
        tokens: questions with their answers.
        subjects: of every row the first and the last token of the subject, counted from 0, the last one excluded.
        kind: what is put back: what a block passes on (``hidden``), or what its feed-forward network or its attention
            adds.
        noise: deviation in units of that of all embeddings.
        samples: draws.
        window: so many layers around each are put back together.
        seed: of the noise.

    Returns:
        Effects of shape (rows, tokens, blocks), NaN from the first token of the answer on.

    Raises:
        BadInput: a subject that is not in its prompt.
    """
    tracer = _Tracer(model.eval(), tokens, subjects, kind)
    with torch.no_grad():
        clean = tracer.run()
        scale = noise * float(_table(model).weight.std())
        drawn = [scale * tracer.noise(generator(seed, "tracing", i)) for i in range(samples)]
        broken = torch.stack([tracer.run(add)[0] for add in drawn])
        width, count = tracer.x.shape[1], len(tracer.layers)
        found = torch.full((len(tokens), width, count), torch.nan)
        for at in range(int(tokens.prompts.max())):
            for layer in range(count):
                low = max(layer - window // 2, 0)
                put = {i: clean[1][i] for i in range(low, min(low + window, count))}
                back = torch.stack([tracer.run(add, put, at)[0] for add in drawn])
                found[:, at, layer] = (back - broken).mean(0)
    return found.masked_fill(torch.arange(width)[None, :, None] >= tracer.prompts[:, None, None], torch.nan)


def at_last(effects: Tensor, subjects: Sequence[Span]) -> Tensor:
    """The mean effect of each block at the last token of the subject; shape (blocks,)."""
    return torch.stack([effects[i, end - 1] for i, (_, end) in enumerate(subjects)]).mean(0)


def spans(tokens: Tokens, subjects: Sequence[Sequence[int]]) -> list[Span]:
    """Where the tokens of each row's subject stand in its prompt, the last time. Raises BadInput where they do not."""
    found = []
    for i, subject in enumerate(subjects):
        prompt, wanted = tokens.prompt(i), list(subject)
        starts = [k for k in range(len(prompt) - len(wanted) + 1) if prompt[k : k + len(wanted)] == wanted]
        if not starts or not wanted:
            raise BadInput(f"row {tokens.ids[i]}: its prompt does not hold the subject's tokens {wanted}")
        found.append((starts[-1], starts[-1] + len(wanted)))
    return found


class _Tracer:
    """One model and one set of rows, run with noise and with outputs put back."""

    def __init__(self, model: nn.Module, tokens: Tokens, subjects: Sequence[Span], kind: Kind) -> None:
        batch = tokens.batch(torch.arange(len(tokens)))
        self.model, self.batch, self.x, self.task = model, batch, batch["x"], CausalLM()
        self.prompts = torch.tensor([tokens.sequence(i)[1] for i in range(len(tokens))])
        self.layers = [model.get_submodule(name) for name in _layers(model, kind)]
        self.subject = torch.zeros(self.x.shape, dtype=torch.bool)
        for i, (start, end) in enumerate(subjects):
            if not 0 <= start < end <= int(self.prompts[i]):
                raise BadInput(f"row {tokens.ids[i]}: a subject at {start} to {end} is not within its prompt")
            self.subject[i, start:end] = True

    def noise(self, rng: torch.Generator) -> Tensor:
        """Standard normal values at the subjects, 0 elsewhere; (rows, tokens, width)."""
        width = _table(self.model).weight.shape[1]
        return torch.randn(*self.x.shape, width, generator=rng) * self.subject[..., None]

    def run(
        self, add: Tensor | None = None, put: dict[int, Tensor] | None = None, at: int = 0
    ) -> tuple[Tensor, list[Tensor]]:
        """Probabilities of the answers, and the outputs of all layers, some of them put back at the token ``at``."""
        seen: list[Tensor] = []

        def layer(i: int) -> Callable[..., Any]:
            def hook(_: nn.Module, __: Any, out: Any) -> Any:
                value = out[0] if isinstance(out, tuple) else out
                if put is not None and i in put:
                    value = value.clone()
                    value[:, at] = put[i][:, at]
                seen.append(value)
                return (value, *out[1:]) if isinstance(out, tuple) else value

            return hook

        hooks = [(module, layer(i)) for i, module in enumerate(self.layers)]
        if add is not None:
            hooks.append((_table(self.model), lambda _, __, out: out + add))
        with _hooked(hooks):
            out = self.task.forward({"model": self.model}, "model", self.batch)
        return mean(*answer_log_probs(out, self.batch["y"])).exp(), seen


@contextlib.contextmanager
def _hooked(hooks: Sequence[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _table(model: nn.Module) -> Any:
    return model.get_submodule(embedding(model).removesuffix(".weight"))


def _layers(model: nn.Module, kind: Kind) -> list[str]:
    """Names of the modules whose outputs are put back, one a block."""
    if kind == "hidden":
        return blocks(model)
    if kind == "mlp":
        ends = [name.removesuffix(".weight").removesuffix(".base_layer") for name in mlp_outputs(model)]
        return [end.rpartition(".")[0] for end in ends]
    return [_attention(model, block) for block in blocks(model)]


def _attention(model: nn.Module, block: str) -> str:
    children = [name for name, _ in model.get_submodule(block).named_children() if "norm" not in name]
    names = [name for name in children if "attn" in name or "attention" in name]
    if len(names) != 1:
        raise BadInput(f"{type(model).__name__}: block {block!r} has {len(names)} attention layers; one is needed")
    return f"{block}.{names[0]}"
