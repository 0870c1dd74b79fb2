"""The model under study: loaded once a process, in eval mode, with gradients off.

A source is a short name (smollm2-135m-instruct, gemma3-270m), a GGUF file, a local folder or a
Hugging Face id; model_sources.py finds and converts it. What a model computes where is
assets/activations/; nothing here looks inside it. torch and transformers are imported on use.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.model_sources import (
    MODEL_WHEELS,
    SubjectModelError,
    converted_gguf,
    default_model_name,
    file_digest,
    folder_digest,
    gguf_path,
)

__all__ = [
    "SubjectModel",
    "SubjectModelError",
    "default_model_name",
    "forget_subject_models",
    "gguf_path",
    "load_subject_model",
]

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16", "float16")
MODELS_KEPT = 2
"""How many models a process keeps loaded; the one used longest ago goes first."""

_MLP_WIDTH_NAMES = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")

_loaded: OrderedDict[tuple[str, ...], SubjectModel] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True)
class SubjectModel:
    """A causal language model with its tokenizer and what identifies and measures it.

    `revision` is the hub's commit hash, or 16 hex digits of the sha256 of the local files.
    """

    name: str
    model: Any
    tokenizer: Any
    revision: str
    dtype: str
    n_layers: int
    d_model: int
    d_mlp: int
    device: str


def load_subject_model(
    source: str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    device: str | None = None,
    cache_folder: Path,
) -> SubjectModel:
    """The model of `source`, loaded now or kept from an earlier call with the same arguments.

    `device` None means cuda where there is one, else cpu. Raises SubjectModelError when the
    source is unknown or unreachable, is no causal language model, or lacks weights.
    """
    import torch

    if dtype not in DTYPES:
        raise SubjectModelError(
            f"dtype {dtype!r} is unknown; expected one of {', '.join(DTYPES)}; set model.dtype"
        )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with _lock:
        place, local_revision = _resolve(source, revision, cache_folder)
        key = (source, revision or "", local_revision or "", dtype, device)
        if key in _loaded:
            _loaded.move_to_end(key)
            return _loaded[key]
        # Room first: two large models at once may not fit.
        while len(_loaded) >= MODELS_KEPT:
            _loaded.popitem(last=False)
        subject = _load(source, place, revision, local_revision, dtype, device)
        _loaded[key] = subject
        return subject


def forget_subject_models() -> None:
    """Lets go of every loaded model."""
    with _lock:
        _loaded.clear()


def mlp_width(config: Any) -> int:
    """d_mlp by the names that configurations give it; 4 d_model where GPT-2's n_inner is None."""
    for name in _MLP_WIDTH_NAMES:
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    return 4 * config.hidden_size


def _resolve(source: str, revision: str | None, cache_folder: Path) -> tuple[str, str | None]:
    """(what transformers loads from, the digest of local files or None for a hub id)."""
    gguf = gguf_path(source, cache_folder)
    if gguf is not None:
        folder = converted_gguf(gguf, cache_folder)
        return str(folder), file_digest(gguf, cache_folder)
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise SubjectModelError(
                f"model source {source!r}: found a folder without config.json; expected a model "
                "saved by save_pretrained, or a .gguf file; point model.source to it"
            )
        return str(folder), folder_digest(folder, cache_folder)
    if folder.is_absolute() or source.startswith((".", "~")):
        raise SubjectModelError(
            f"model source {source!r}: no such folder; expected a model saved by save_pretrained, "
            "a .gguf file or a Hugging Face id"
        )
    return source, None


def _load(
    source: str,
    place: str,
    revision: str | None,
    local_revision: str | None,
    dtype: str,
    device: str,
) -> SubjectModel:
    import torch
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    transformers.utils.logging.disable_progress_bar()
    # revision belongs to the hub: a local folder has only what it holds.
    options: dict[str, Any] = {} if local_revision else {"revision": revision or "main"}
    try:
        config = AutoConfig.from_pretrained(place, **options)
        _check_causal(source, config)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            place, config=config, dtype=getattr(torch, dtype), output_loading_info=True, **options
        )
        model, report = loaded
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
    except SubjectModelError:
        raise
    except Exception as error:  # broken files fail in transformers and tokenizers in any way
        raise SubjectModelError(_explain(source, local_revision is None, error)) from error
    if report["missing_keys"]:
        some = ", ".join(sorted(report["missing_keys"])[:5])
        raise SubjectModelError(
            f"model {source!r} lacks {len(report['missing_keys'])} weights ({some}, ...), which "
            "would be random; expected the weights of the whole causal LM"
        )
    model = model.to(device).eval().requires_grad_(False)
    text_config = config.get_text_config()
    return SubjectModel(
        name=default_model_name(source),
        model=model,
        tokenizer=tokenizer,
        revision=local_revision or str(getattr(config, "_commit_hash", None) or revision or "main"),
        dtype=dtype,
        n_layers=int(text_config.num_hidden_layers),
        d_model=int(text_config.hidden_size),
        d_mlp=mlp_width(text_config),
        device=device,
    )


def _check_causal(source: str, config: Any) -> None:
    """Refuses encoders and encoder-decoders; transformers would give some of them a new head."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    causal_class = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    causal_names = {causal_class} if isinstance(causal_class, str) else set(causal_class or ())
    declared = list(config.architectures or ())
    is_causal = (
        bool(causal_names)
        and not config.is_encoder_decoder
        and (
            bool(causal_names & set(declared))
            if declared
            # Encoders that can be decoders say which they are.
            else getattr(config, "is_decoder", True)
        )
    )
    if not is_causal:
        found = ", ".join(declared) or f"model_type {config.model_type}"
        raise SubjectModelError(
            f"model {source!r} is not a causal language model: found {found}; expected a "
            "decoder-only model such as LlamaForCausalLM or GPT2LMHeadModel"
        )


def _explain(source: str, is_hub_id: bool, error: Exception) -> str:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if not is_hub_id:
        return (
            f"model {source!r} could not be loaded: {first_line}; expected configuration, weights "
            "(safetensors) and tokenizer files as save_pretrained writes them"
        )
    return (
        f"model {source!r} is no short name ({', '.join(MODEL_WHEELS)}), no folder and no .gguf "
        f"file here, and as a Hugging Face id it could not be loaded: {first_line}; check the "
        "spelling, the network and, for a gated model, that HF_TOKEN is set"
    )
