"""Reading and changing activations at a site while a model runs, in context managers.

Hooks are always removed when a block ends, also after an exception. Activations are handed over
as [batch, sequence, width] even where the model flattens them (OPT's MLP). What is recorded for
which purpose is capture.py; how strong a steering vector is belongs to the steering stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from assets.activations.model_structure import locate_block, locate_blocks, locate_site
from assets.activations.projections import final_norm
from assets.activations.site_names import ActivationSite, SiteError

Recorder = Callable[[ActivationSite, Float[Tensor, "batch sequence width"]], None]
Edit = Callable[[Float[Tensor, "batch sequence width"]], Float[Tensor, "batch sequence width"]]


class _ForwardStopped(Exception):
    """Ends a forward pass on purpose; caught by the `stop_after` that raised it."""


@contextmanager
def record_sites(
    model: nn.Module, sites: Sequence[ActivationSite], callback: Recorder
) -> Iterator[None]:
    """Calls `callback(site, activations)` at each site in every forward pass.

    The activations are the model's own memory: copy what outlives the call.
    """
    with ExitStack() as stack:
        for site in sites:

            def record(activations: Tensor, site: ActivationSite = site) -> None:
                callback(site, activations.detach())

            stack.enter_context(_attached(model, site, record))
        yield


@contextmanager
def add_at_site(
    model: nn.Module,
    site: ActivationSite,
    vectors: Float[Tensor, "batch width"] | Float[Tensor, " width"],
) -> Iterator[None]:
    """Adds one vector, or one vector a batch row, to the site's activations at all positions.

    Rows whose vector is zero are left as they are, bit for bit (x + 0 would turn -0.0 into 0.0).
    Raises SiteError when the vectors do not fit the site or the batch.
    """
    width = locate_site(model, site).width
    if vectors.ndim not in (1, 2) or vectors.shape[-1] != width:
        raise SiteError(
            f"vectors of shape {tuple(vectors.shape)} do not fit site {site.key}; expected "
            f"[{width}] or [batch, {width}]"
        )
    rows = vectors.reshape(-1, 1, width)
    is_changed = (rows != 0).any(dim=-1, keepdim=True)
    # Asked once, here: a look at the values in every forward would make a GPU wait.
    every_row, any_row = bool(is_changed.all()), bool(is_changed.any())

    def add(activations: Tensor) -> Tensor:
        if len(rows) not in (1, len(activations)):
            raise SiteError(
                f"{len(rows)} vectors for a batch of {len(activations)} at site {site.key}; "
                "expected one vector, or one a batch row"
            )
        moved = activations + rows.to(activations)
        if every_row:
            return moved
        return torch.where(is_changed.to(activations.device), moved, activations)

    if not any_row:
        yield
        return
    with _attached(model, site, add):
        yield


@contextmanager
def replace_at_site(model: nn.Module, site: ActivationSite, fn: Edit) -> Iterator[None]:
    """Puts `fn(activations)` in the place of the site's activations; the shape must stay."""

    def replace(activations: Tensor) -> Tensor:
        replaced = fn(activations)
        if replaced.shape != activations.shape:
            raise SiteError(
                f"replacement of shape {tuple(replaced.shape)} at site {site.key}; expected "
                f"{tuple(activations.shape)}"
            )
        return replaced.to(activations)

    with _attached(model, site, replace):
        yield


@contextmanager
def stop_after(model: nn.Module, layer: int) -> Iterator[None]:
    """Ends a forward pass inside the block once decoder block `layer` has run.

    The pass stops where the next block (or, after the last, the final norm) would begin, so every
    hook on block `layer` has seen its activations. Nothing later runs and the call has no result.
    """
    block = locate_block(model, layer)  # an out-of-range layer is an error of its own
    blocks = locate_blocks(model)
    following = blocks[layer + 1] if layer + 1 < len(blocks) else final_norm(model)
    own = object()

    def stop(*_: Any) -> None:
        raise _ForwardStopped(own)

    if any(module is following for module in model.modules()):
        handle = following.register_forward_pre_hook(stop)
    else:  # a model without a final norm
        handle = block.register_forward_hook(stop)
    try:
        yield
    except _ForwardStopped as error:
        if error.args != (own,):
            raise
    finally:
        handle.remove()


def run_forward(
    model: nn.Module, inputs: Mapping[str, Any], stop_layer: int | None = None
) -> Any | None:
    """One forward pass; None instead of the output when it stopped after block `stop_layer`.

    Keeps no key-value cache unless `inputs` asks for one.
    """
    arguments = {"use_cache": False, **inputs}
    if stop_layer is None:
        return model(**arguments)
    with stop_after(model, stop_layer):
        model(**arguments)
    return None


@contextmanager
def _attached(
    model: nn.Module, site: ActivationSite, fn: Callable[[Tensor], Tensor | None]
) -> Iterator[None]:
    """Runs `fn` on the site's activations in each forward; a returned tensor takes their place."""
    located = locate_site(model, site)
    batch_shape: list[tuple[int, ...]] = [()]

    def note_shape(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        batch_shape[0] = tuple(hidden.shape[:-1])

    def apply(tensor: Tensor) -> Tensor | None:
        if tensor.shape[-1] != located.width:
            raise SiteError(
                f"activations of width {tensor.shape[-1]} at site {site.key}; expected "
                f"{located.width}"
            )
        changed = fn(tensor.reshape(*batch_shape[0], located.width))
        return None if changed is None else changed.reshape(tensor.shape)

    def on_input(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        changed = apply(args[0])
        return None if changed is None else (changed, *args[1:])

    def on_output(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any | None:
        is_tuple = isinstance(output, tuple)
        changed = apply(output[0] if is_tuple else output)
        if changed is None:
            return None
        return (changed, *output[1:]) if is_tuple else changed

    handles = [located.block.register_forward_pre_hook(note_shape, with_kwargs=True)]
    try:
        if located.is_input:
            handles.append(located.module.register_forward_pre_hook(on_input))
        else:
            handles.append(located.module.register_forward_hook(on_output))
        yield
    finally:
        for handle in handles:
            handle.remove()
