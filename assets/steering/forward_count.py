"""How many tokens go through a model: positions of every forward call, rows filled up included.

A forward that begins at a later block or stops early counts like a whole one; the blocks that it
ran are suffix_forward.py's `layer_token_evaluations`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass
class ForwardCount:
    """Tokens counted so far."""

    n_tokens: int = 0


@contextmanager
def count_forward_tokens(model: nn.Module) -> Iterator[ForwardCount]:
    """Counts the tokens (`input_ids`, passed by name) of the model's forward calls inside."""
    count = ForwardCount()

    def note(_: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        count.n_tokens += kwargs["input_ids"].numel()

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield count
    finally:
        handle.remove()
