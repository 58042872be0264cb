"""Loading a language model as a TransformerLens bridge: the embedded model, a local directory, a hub name.

Nothing here opens a connection unless the caller names a model of a hub. A directory is inspected before
TransformerLens sees it, because `boot_transformers` accepts a directory without tokenizer files and then
silently makes an empty tokenizer.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from workbench.assets import asset_folder
from workbench.errors import UserError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

EMBEDDED = "embedded"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
WEIGHT_PATTERNS = ("*.safetensors", "*.safetensors.index.json")


def embedded_model_dir() -> Path:
    """The directory of the language model that ships with the workbench."""
    return asset_folder("data") / "model"


def _check_directory(folder: Path) -> None:
    """Refuse a directory that is not a whole Hugging Face model with its tokenizer."""
    if not (folder / "config.json").exists():
        raise UserError(f"model directory {str(folder)!r} has no config.json: give a Hugging Face directory")
    if not any(next(folder.glob(pattern), None) for pattern in WEIGHT_PATTERNS):
        raise UserError(
            f"model directory {str(folder)!r} has no .safetensors weights: save the model as safetensors"
        )
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise UserError(
            f"model directory {str(folder)!r} has no tokenizer files ({', '.join(TOKENIZER_FILES[:3])}, ...): "
            "save the tokenizer into it with tokenizer.save_pretrained"
        )


def resolve_model(source: str | Path) -> str:
    """The argument for TransformerLens: a checked local directory, or a hub name as it is.

    Raises:
        UserError: the source looks like a path and is no model directory.
    """
    if str(source) == EMBEDDED:
        source = embedded_model_dir()
    path = Path(source).expanduser()
    if path.is_dir():
        _check_directory(path)
        return str(path)
    looks_like_path = (
        isinstance(source, Path) or str(source).startswith((".", "/", "~")) or os.sep * 2 in str(source)
    )
    if looks_like_path or path.exists() or str(source).count("/") > 1:
        raise UserError(
            f"model {str(source)!r} is not a directory: give {EMBEDDED!r}, a Hugging Face directory or a hub name"
        )
    return str(source)


def load_model(
    source: str | Path = EMBEDDED,
    *,
    device: str | None = None,
    dtype: torch.dtype = torch.float32,
    device_map: str | dict[str, str] | None = None,
) -> TransformerBridge:
    """A TransformerLens bridge in evaluation mode with frozen parameters.

    Args:
        source: `"embedded"`, a Hugging Face directory, or a hub name (the only case that may use the network).
        device: Torch device; by default CUDA where there is one, else the CPU.
        dtype: Parameter dtype.
        device_map: Spreads the model over several devices (`"auto"`, or module name to device); `device` is then
            not used.

    A checkpoint without a language-model head gives NaN logits (see `blank_missing_head`).

    Raises:
        UserError: the source is neither, or its files are incomplete.
    """
    name = resolve_model(source)
    from transformer_lens.model_bridge import TransformerBridge
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        where: dict[str, Any] = (
            {"device_map": device_map} if device_map else {"device": device or default_device()}
        )
        model = TransformerBridge.boot_transformers(name, dtype=dtype, **where)
    except OSError as error:
        raise UserError(
            f"model {str(source)!r} could not be loaded: it is no local directory and no hub answered for it"
        ) from error
    model.eval().requires_grad_(False)
    blank_missing_head(model)
    return model


def load_random_model(
    source: str | Path = EMBEDDED, *, seed: int, device: str | None = None, dtype: torch.dtype = torch.float32
) -> TransformerBridge:
    """A model of the same configuration with freshly initialised weights: what no training has touched.

    Args:
        source: As `load_model`.
        seed: Decides the weights.
        device: Torch device; by default CUDA where there is one, else the CPU.
        dtype: Parameter dtype.

    Raises:
        UserError: the source looks like a path and is no model directory.
    """
    name = resolve_model(source)
    from transformer_lens.tools.analysis.interchange import random_init_bridge

    with contextlib.redirect_stdout(io.StringIO()):  # it prints where it moves the model
        model = random_init_bridge(name, seed=seed, device=device or default_device(), dtype=dtype)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def blank_missing_head(model: TransformerBridge) -> list[str]:
    """Fill head weights that the checkpoint's class does not have with NaN, and return their names.

    TransformerLens loads an encoder or a base model (`BertModel`, `LlamaModel`) into a class with a head and
    leaves that head random: another one in each process. NaN cannot be taken for a result, and the hash of
    the model's parameters stays the same.
    """
    import transformers

    inner: Any = model.original_model
    saved = getattr(transformers, (inner.config.architectures or [""])[0], None)
    if saved is None or type(inner) is saved:
        return []
    with torch.device("meta"):
        known = set(saved._from_config(copy.deepcopy(inner.config)).state_dict())
    trunk = {p.data_ptr() for p in inner.base_model.parameters()}
    blank = {name.replace("_original_component.", ""): p for name, p in inner.named_parameters()}
    blank = {name: p for name, p in blank.items() if name not in known and p.data_ptr() not in trunk}
    for parameter in blank.values():
        parameter.fill_(torch.nan)
    return sorted(blank)


def default_device() -> str:
    """`cuda` where there is one, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def model_hash(model: nn.Module) -> str:
    """SHA-256 over the names, shapes, dtypes and bytes of all parameters, computed once per loaded model."""
    known = model.__dict__.get("_workbench_hash")
    if known is None:
        known = model.__dict__["_workbench_hash"] = _hash_parameters(model)
    return known


def _hash_parameters(model: nn.Module) -> str:
    digest = hashlib.sha256()
    seen: set[int] = set()
    parameters: dict[str, Any] = dict(_unwrapped(model).named_parameters())
    for name in sorted(parameters):
        tensor = parameters[name].detach()
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _unwrapped(model: nn.Module) -> nn.Module:
    """The bridge's own Hugging Face or native model, so that wrapping does not change the hash."""
    original = getattr(model, "original_model", None)
    return original if isinstance(original, nn.Module) else model
