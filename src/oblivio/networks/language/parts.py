"""The parts of a causal language model by name, whatever its family calls them."""

from __future__ import annotations

from torch import nn

from oblivio.core.errors import BadInput

OUTPUTS = ("down_proj", "c_proj", "fc2", "dense_4h_to_h", "wo", "w2")  # of feed-forward networks, in different families
ROUTERS = ("gate", "router", "wg")


def blocks(model: nn.Module) -> list[str]:
    """Dotted names of the transformer blocks, in order. Raises BadInput where the model has no list of them."""
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len({type(child) for child in module}) == 1
    ]
    layers = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    known = [name for name, module in lists if layers is None or len(module) == layers]
    if not known:
        raise BadInput(f"{type(model).__name__} has no list of transformer blocks; it is no language model known here")
    first = min(known, key=lambda name: name.count("."))
    return [f"{first}.{i}" for i in range(len(model.get_submodule(first)))]  # type: ignore[arg-type]


def mlp_outputs(model: nn.Module) -> list[str]:
    """The weight that ends each block's feed-forward network, by its dotted name: in Llama ``...mlp.down_proj.weight``.

    Under adapters it is the name of the layer beneath. Raises BadInput where a block has none, or several.
    """
    return [_only(model, block, [n for n in _weights(model, block) if _is_output(n)]) for block in blocks(model)]


def routers(model: nn.Module) -> list[str]:
    """The weight of the router of each block that has one; some may be dense. Raises BadInput where all of them are."""
    found = []
    for block in blocks(model):
        names = [n for n in _weights(model, block) if n.rpartition(".")[0].rpartition(".")[2] in ROUTERS]
        found += [_only(model, block, names)] if names else []
    if not found:
        raise BadInput(f"{type(model).__name__} is dense: no block has a router, so there are no experts")
    return found


def embedding(model: nn.Module) -> str:
    """The dotted name of the token embedding's weight."""
    get = getattr(model, "get_input_embeddings", None)
    if get is None:
        raise BadInput(f"{type(model).__name__} names no token embedding; it is no language model of Transformers")
    table = get()
    return next(f"{name}.weight" for name, module in model.named_modules() if module is table)


def _weights(model: nn.Module, block: str) -> list[str]:
    return [f"{block}.{name}" for name, _ in model.get_submodule(block).named_parameters() if "lora_" not in name]


def _is_output(name: str) -> bool:
    words = [w for w in name.split(".") if w not in ("weight", "base_layer")]
    return words[-1] in OUTPUTS and any("attn" in w or "attention" in w for w in words) is False


def _only(model: nn.Module, block: str, names: list[str]) -> str:
    if len(names) != 1:
        kind = type(model).__name__
        raise BadInput(f"{kind}: block {block!r} has {len(names)} such weights {names[:3]}; one is needed")
    return names[0]
