"""Folders of language models as Transformers and PEFT write them, so that other tools load what is made here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from torch import nn

from oblivio.core import files
from oblivio.core.errors import BadInput
from oblivio.core.shards import gathered, is_sharded
from oblivio.core.surgery import Journal, Wrap, replay
from oblivio.modules.adapters import adapter_weights, adapters, quiet

CONFIG, ADAPTER, FACTS = "config.json", "adapter_config.json", "oblivio.json"
BASE, TENSORS, WEIGHTS = "base", "wrap.safetensors", "adapter_model.safetensors"
HUB, PREFIX = "hub:", "base_model.model."  # PEFT puts the latter before names

State: TypeAlias = "dict[str, torch.Tensor] | None"


def is_language_model(folder: str | Path) -> bool:
    """Whether a folder is a model of Transformers, of PEFT or of ``save_model``, or named ``hub:<repository>``."""
    if str(folder).startswith(HUB):
        return True
    return any((Path(folder) / name).is_file() for name in (CONFIG, ADAPTER, f"{BASE}/{CONFIG}"))


def journal_of(folder: str | Path) -> Journal:
    """The surgery by which the model in a folder was made of the one beneath it."""
    known = Path(folder) / FACTS
    return list(files.read_json(known).get("journal", ())) if (Path(folder) / BASE / CONFIG).is_file() else []


def _hush() -> None:
    """Reading and writing a model draws no bars of its own."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def open_model(folder: str | Path, trust: Sequence[str] = ()) -> tuple[Any, Any]:
    """The causal language model in a folder, in evaluation mode, and its tokenizer.

    Args:
        folder: of Transformers (``config.json``), of PEFT (``adapter_config.json``; its base is opened too), one that
            ``save_model`` wrote, or ``hub:<repository>``.
        trust: classes that come as code with the model, by the names its config gives them, that may be run.

    Raises:
        BadInput: no model there, weights that are a pickle or do not fit, code that is not trusted, a tokenizer that is
            missing or has more tokens than the model.
    """
    path = Path(folder)
    if not is_language_model(folder):
        raise BadInput(f"{folder} is no language model: it holds neither {CONFIG} nor {ADAPTER}")
    if (path / BASE / CONFIG).is_file():
        return _wrapped(path, trust)
    if (path / ADAPTER).is_file():
        return _adapted(path, trust)
    _hush()
    name = str(folder).removeprefix(HUB)
    model, tokenizer = _plain(name, trust), _tokenizer(name)
    _check_vocabulary(folder, model, tokenizer)
    return model, tokenizer


def _plain(name: str, trust: Sequence[str]) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    code = _code(Path(name))
    if code and code not in trust:
        raise BadInput(f"{name} comes with code of its own, which is not run; allow it by its name with trust={code}")
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=bool(code))
        model = AutoModelForCausalLM.from_pretrained(
            name, config=config, use_safetensors=True, trust_remote_code=bool(code), dtype="auto"
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BadInput(f"{name} cannot be opened as a language model: {str(error).partition(chr(10))[0]}") from None
    return model.eval()


def _code(path: Path) -> str:
    """The class that comes as code with the model, by the name its config gives it; empty where there is none."""
    if not (path / CONFIG).is_file():
        return ""
    return str(files.read_json(path / CONFIG).get("auto_map", {}).get("AutoModelForCausalLM", ""))


def _tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"{name} has no tokenizer that can be read: {str(error).partition(chr(10))[0]}; save it beside the model"
        ) from None


def _check_vocabulary(folder: str | Path, model: Any, tokenizer: Any) -> None:
    known, most = model.get_input_embeddings().num_embeddings, max(tokenizer.get_vocab().values(), default=-1)
    if most >= known:
        raise BadInput(
            f"{folder}: the tokenizer has the token {most}, the model only {known} of them (0 to {known - 1}); it "
            "belongs to another model"
        )


def _adapted(path: Path, trust: Sequence[str]) -> tuple[Any, Any]:
    """The base with the adapter of PEFT in this folder beside it."""
    from peft import LoraConfig, PeftConfig, inject_adapter_in_model, set_peft_model_state_dict

    base = files.read_json(path / ADAPTER).get("base_model_name_or_path")
    if not base or not (is_language_model(path / base) or is_language_model(base)):
        raise BadInput(f"{path / ADAPTER} names the base model {base!r}, which is not there; put its folder back")
    config = PeftConfig.from_pretrained(str(path))
    if not isinstance(config, LoraConfig):
        raise BadInput(f"{path} holds an adapter of the kind {config.peft_type}; LoRA is what can be opened here")
    model, tokenizer = open_model(path / base if is_language_model(path / base) else base, trust)
    with quiet():
        inject_adapter_in_model(config, model, adapter_name="default")
    tensors = {n.removeprefix(PREFIX): t for n, t in files.read_tensors(path / WEIGHTS).items()}
    found: Any = set_peft_model_state_dict(model, tensors, adapter_name="default")
    if strange := found.unexpected_keys:
        raise BadInput(f"{path / WEIGHTS} does not fit its base {base}: {', '.join(strange[:3])}")
    model.peft_config = {"default": config}
    return model.eval(), tokenizer


def _wrapped(path: Path, trust: Sequence[str]) -> tuple[Any, Any]:
    model, tokenizer = open_model(path / BASE, trust)
    facts = files.read_json(path / FACTS)
    nets = nn.ModuleDict({"model": model})
    replay(nets, facts["journal"])
    tensors, named = files.read_tensors(path / TENSORS), _tensors(nets)
    if missing := sorted(set(facts["tensors"]) ^ set(tensors)) + sorted(set(tensors) - set(named)):
        raise BadInput(f"{path / TENSORS} does not fit the model: {', '.join(missing[:3])}")
    with torch.no_grad():
        for name, value in tensors.items():
            named[name].copy_(value)
    made: Any = nets["model"]
    return made.eval(), tokenizer


def _tensors(nets: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(nets.named_parameters()), **dict(nets.named_buffers())}


# --- writing


def save_model(
    folder: str | Path,
    model: nn.Module,
    tokenizer: Any,
    *,
    journal: Journal = (),  # type: ignore[assignment]
    base: str | Path | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a language model into a new folder, which appears whole or not at all.

    A model of its own becomes a folder of Transformers, one with an adapter a folder of PEFT, which names its base and
    holds the adapter alone. A Wrap, or several adapters, cannot be written in these forms: its folder holds the model
    beneath in ``base`` (of Transformers), the journal of surgery, and all tensors that are not the base's.

    Where each process holds a shard of the weights, all of them must call this; the first writes.

    Args:
        folder: new or empty.
        model: ``nets["model"]`` of a problem.
        tokenizer: written along.
        journal: the surgery since the model was opened.
        base: the folder that the model was opened from; of a folder of PEFT its own base is named.
        facts: JSON facts of the making, written to ``oblivio.json``.

    Raises:
        BadInput: a folder that holds something, an adapter without ``base``, or a sharded Wrap.
    """
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BadInput(f"{path} holds something; choose a new folder")
    if adapters(model) and base is None and not _joined(model):
        raise BadInput("an adapter is written without its base; say with base= where that lies, or merge it first")
    known = {"journal": list(journal), **(facts or {})}
    if not any(is_sharded(w) for w in model.parameters()):
        _write(path, model, tokenizer, known, base, None)
        return
    if _joined(model):
        raise BadInput("a Wrap or several adapters cannot be written from shards; leave out sharding='full'")
    torch.distributed.barrier()  # all have seen that the folder is free
    state = _gathered(model)
    if torch.distributed.get_rank() == 0:
        _write(path, model, tokenizer, known, base, state)
    torch.distributed.barrier()


def _joined(model: nn.Module) -> bool:
    """Whether it is more than a model, or a model with an adapter."""
    return isinstance(model, Wrap) or len(adapters(model)) > 1


def _gathered(model: nn.Module) -> State:
    """What is to be written of a sharded model, tied weights once: on the first process all of it, else nothing."""
    chosen: Any = [n for name in adapters(model) for n in adapter_weights(model, name)]
    state, named = model.state_dict(), {n for n, _ in model.named_parameters()} | {n for n, _ in model.named_buffers()}
    wanted = {n: t for n, t in state.items() if n in (chosen or named)}
    return gathered(wanted, keep=torch.distributed.get_rank() == 0)


def _write(
    path: Path, model: nn.Module, tokenizer: Any, known: dict[str, Any], base: str | Path | None, state: State
) -> None:
    """``state``: the tensors of the model, where it does not hold all of each itself."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.mkdir(parents=True)
    try:
        _hush()
        if _joined(model):
            known["tensors"] = _write_wrap(part, model, tokenizer)
        elif adapters(model):
            _write_adapter(part, model, tokenizer, base, state)
        else:
            _write_plain(part, model, tokenizer, state)
        files.write_json(part / FACTS, known)
        if path.exists():
            path.rmdir()
        os.replace(part, path)
        files.sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _write_plain(path: Path, model: Any, tokenizer: Any, state: State) -> None:
    model.save_pretrained(path, state_dict=state)
    tokenizer.save_pretrained(path)


def _write_adapter(path: Path, model: Any, tokenizer: Any, base: str | Path | None, state: State) -> None:
    from peft import get_peft_model_state_dict

    ((name, config),) = adapters(model).items()
    kept = config.base_model_name_or_path, config.inference_mode, config.task_type
    config.base_model_name_or_path = _beneath_adapter(str(base))
    config.inference_mode, config.task_type = True, "CAUSAL_LM"
    try:
        config.save_pretrained(str(path))
    finally:
        config.base_model_name_or_path, config.inference_mode, config.task_type = kept
    tensors = get_peft_model_state_dict(model, state, adapter_name=name)
    files.write_tensors(path / WEIGHTS, {f"{PREFIX}{n}": t for n, t in tensors.items()})
    tokenizer.save_pretrained(path)


def _beneath_adapter(folder: str) -> str:
    """Where the model lies beside which the adapter of a folder of PEFT stands; else the folder itself."""
    path = Path(folder)
    if not (path / ADAPTER).is_file():
        return folder
    base = str(files.read_json(path / ADAPTER).get("base_model_name_or_path"))
    return str((path / base).absolute()) if is_language_model(path / base) else base


def _write_wrap(path: Path, model: nn.Module, tokenizer: Any) -> list[str]:
    """Names of the tensors that stand beside the base's, which is written as it was before any surgery."""
    inner = _beneath(model)
    bare, own = _bare(inner)
    (path / BASE).mkdir()
    inner.save_pretrained(path / BASE, state_dict=bare)
    tokenizer.save_pretrained(path / BASE)
    held = {id(t) for n, t in inner.state_dict(keep_vars=True).items() if n not in own}
    rest = {n: t for n, t in _tensors(nn.ModuleDict({"model": model})).items() if id(t) not in held}
    files.write_tensors(path / TENSORS, rest)
    return sorted(rest)


def _beneath(model: Any) -> Any:
    """The model of Transformers that a Wrap stands around, under its attribute ``model``."""
    while isinstance(model, Wrap):
        model = model.model
    return model


def _bare(model: Any) -> tuple[dict[str, torch.Tensor], set[str]]:
    """The weights of a model as they were called before adapters came, and the names of what adapters added."""
    state = model.state_dict()
    own = {n for n in state if "lora_" in n or n.startswith("lora")}
    return {n.replace(".base_layer.", "."): t for n, t in state.items() if n not in own}, own
