"""Factorizations larger than memory: shards are read part by part (a row group each).

The dictionary is fitted by SemiNMF.fit_blocks, whose coefficients wait in scratch files between
passes. One pass more solves every token's coefficients for the final dictionary, keeps those above
zero, and adds up what factorization.py measures. Memory: one shard, the dictionary, and the
coefficients above zero. For the methods whose coefficients come from the sparse solve.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from assets.activations.shards import ActivationReader, ShardPart
from assets.factorization.config import FitConfig
from assets.factorization.coordinate_solver import ProgressCallback
from assets.factorization.factorization import Factorization
from assets.factorization.freed_memory import give_back_unused, giving_back
from assets.factorization.inputs import FactorizationError, check_rank
from assets.factorization.metrics import ExplainedVarianceSum
from assets.factorization.null_controls import controlled_dictionary, snmf_start
from assets.factorization.projection import (
    KeptFit,
    ProjectedRows,
    check_projection,
    projected_rows,
)
from assets.factorization.scaling import measure_scales
from assets.factorization.semi_nmf import SemiNMF, solved_reason
from assets.factorization.snmf_method import snmf_estimator
from assets.factorization.token_blocks import ScratchStore, StreamedBlocks

# Copies of the activations that a fit in memory makes: all rows, those of the fit, and their scaled
# transpose.
COPIES_IN_MEMORY = 3
BYTES_PER_GIB = 2**30
# Tokens whose final coefficients are solved at a time on a CPU: that copies their rows three times.
SOLVED_AT_A_TIME = 1_024


def needs_streaming(fit: FitConfig, n_tokens: int, width: int) -> bool:
    """Whether a fit in memory would take more than its `max_memory_gib`, and can do without.

    Raises FactorizationError where it would and can't.
    """
    needed = COPIES_IN_MEMORY * n_tokens * width * 4 / BYTES_PER_GIB
    if needed <= fit.max_memory_gib:
        return False
    obstacle = None
    if not fit.is_sparse:
        obstacle = f"method {fit.method!r}"
    elif fit.is_iterative and fit.solver != "coordinate":
        obstacle = f"solver {fit.solver!r}"
    elif fit.rank == "auto":
        obstacle = "rank 'auto'"
    elif fit.stability_seeds:
        obstacle = f"stability_seeds {fit.stability_seeds}"
    if obstacle is None:
        return True
    raise FactorizationError(
        f"{n_tokens} tokens × {width} neurons need {needed:.1f} GiB of memory, max_memory_gib is "
        f"{fit.max_memory_gib:g}, and {obstacle} can't stream over shards: raise max_memory_gib, "
        "take fewer documents, or leave it to method snmf of fixed rank"
    )


@giving_back()
def factorize_streamed(
    reader: ActivationReader,
    fit: FitConfig,
    *,
    is_massive: Bool[Tensor, " n_tokens"],
    start_dictionary: Float[Tensor, "k d"] | None = None,
    device: torch.device | str = "cpu",
    scratch_folder: Path | None = None,
    on_iteration: ProgressCallback | None = None,
) -> tuple[Factorization, float]:
    """What methods.factorize gives, part by part, and the mean row norm that A is divided by.

    The coefficients are a sparse matrix. Scratch files of n_tokens x k x 4 bytes are made in
    `scratch_folder` (None: the system's place for them) and removed. Raises FactorizationError as
    `factorize` does.
    """
    if not isinstance(fit.rank, int):
        raise FactorizationError(f"rank {fit.rank!r} found for a streamed fit; expected a number")
    begin = time.perf_counter()
    source = ShardRows(reader, is_massive)
    blocks = source.blocks(device)
    check_rank(fit.rank, sum(blocks.sizes))
    if fit.is_iterative:
        model = snmf_estimator(fit, fit.rank, fit.seed)
        like = torch.zeros(0, device=device)
        with ScratchStore(blocks, fit.rank, like, scratch_folder) as store:
            model.fit_blocks(
                blocks, start=snmf_start(fit, start_dictionary), store=store,
                on_iteration=on_iteration,
            )  # fmt: skip
        scale, fitted = model.scale_, torch.as_tensor(model.components_)
    else:
        model = fitted = None
        scale = measure_scales(blocks, 0.0).mean_row_norm
    dictionary = controlled_dictionary(fit, fitted, blocks).to(device)
    kept = KeptFit(dictionary, scale)
    return _measured_over_shards(source, fit, kept, model, begin)[0], scale


@giving_back()
def project_streamed(
    reader: ActivationReader,
    fit: FitConfig,
    kept: KeptFit,
    *,
    is_massive: Bool[Tensor, " n_tokens"],
    device: torch.device | str = "cpu",
) -> Factorization:
    """projection.project_tokens, shard by shard."""
    check_projection(fit, kept, reader.width, reader.width)
    source = ShardRows(reader, is_massive)
    source.check_any_fit()
    begin = time.perf_counter()
    kept = replace(kept, dictionary=kept.dictionary.to(device))
    projected, solved = _measured_over_shards(source, fit, kept, None, begin)
    return replace(
        projected,
        n_tokens_fit=projected.n_tokens_fit if kept.n_tokens_fit is None else kept.n_tokens_fit,
        is_converged=kept.was_converged and not solved.n_unconverged,
        stop_reason=kept.reason(solved.n_solved, solved.n_unconverged, solved.n_sweeps),
    )


class ShardRows:
    """The rows of a site's shards, part after part, and which of them the fit sees."""

    def __init__(self, reader: ActivationReader, is_massive: Bool[Tensor, " n_tokens"]) -> None:
        self.reader = reader
        self.is_massive = is_massive.cpu()
        self.parts = reader.parts()

    def read(self, number: int) -> tuple[Float[Tensor, "n_rows d"], Bool[Tensor, " n_rows"]]:
        """Rows of a part as stored, and which of them aren't massive."""
        part = self.parts[number]
        rows = self.reader.read(part.shard, part.part)
        give_back_unused()
        return rows, self._is_fit(part)

    def blocks(self, device: torch.device | str) -> StreamedBlocks:
        """The rows that aren't massive, a block a part."""
        self.check_any_fit()
        sizes = [int(self._is_fit(part).sum()) for part in self.parts]

        def kept(block: int) -> Tensor:
            rows, is_fit = self.read(block)
            return rows if bool(is_fit.all()) else rows[is_fit]

        return StreamedBlocks(kept, sizes, self.reader.width, device)

    def pieces(self, device: torch.device) -> Iterator[tuple[slice, Tensor, Bool[Tensor, " n"]]]:
        """Place, rows and which of them aren't massive, of some tokens after the other."""
        for number, part in enumerate(self.parts):
            read, is_fit = self.read(number)
            step = SOLVED_AT_A_TIME if device.type == "cpu" else part.n_rows
            for begin in range(0, part.n_rows, step):
                piece = slice(begin, min(begin + step, part.n_rows))
                place = slice(part.first_row + piece.start, part.first_row + piece.stop)
                yield place, read[piece].to(device), is_fit[piece].to(device)
            del read  # before the next part is read

    def check_any_fit(self) -> None:
        """Raise FactorizationError where every token is massive."""
        if bool(self.is_massive.all()):
            raise FactorizationError(
                f"all {self.reader.n_rows} tokens are flagged massive; none is left to fit: raise "
                "the threshold that flags them"
            )

    def _is_fit(self, part: ShardPart) -> Bool[Tensor, " n_rows"]:
        return ~self.is_massive[part.first_row : part.first_row + part.n_rows]


@dataclass
class SolveCount:
    """How the solves of all parts ended, together."""

    n_solved: int = 0
    n_sweeps: int = 0
    n_unconverged: int = 0

    def add(self, part: ProjectedRows) -> None:
        self.n_solved += part.n_solved
        self.n_sweeps = max(self.n_sweeps, part.n_sweeps)
        self.n_unconverged += part.n_unconverged


def _measured_over_shards(
    source: ShardRows, fit: FitConfig, kept: KeptFit, model: SemiNMF | None, begin: float
) -> tuple[Factorization, SolveCount]:
    """Coefficients of every token, and the numbers that factorization.measured gives."""
    dictionary = kept.dictionary
    device = dictionary.device
    on_fit, everywhere = ExplainedVarianceSum(), ExplainedVarianceSum()
    parts: list[csr_matrix] = []
    is_alive = torch.zeros(dictionary.shape[0], dtype=torch.bool, device=device)
    n_above_zero, count = 0, SolveCount()
    for place, rows, is_fit in source.pieces(device):
        solved = projected_rows(rows, place, fit, kept, dictionary, rows)
        coefficients = solved.coefficients
        count.add(solved)
        on_fit.add(rows[is_fit], coefficients[is_fit], dictionary)
        everywhere.add(rows, coefficients, dictionary)
        is_above = coefficients[is_fit] > 0
        is_alive |= is_above.any(dim=0)
        n_above_zero += int(is_above.sum())
        parts.append(csr_matrix(coefficients.cpu().numpy()))
        del rows  # it is a view of the part
    n_fit = int((~source.is_massive).sum())
    reason = "coefficients solved to convergence for a fixed dictionary"
    if count.n_unconverged:
        reason = (
            f"{count.n_unconverged} tokens still moving after {count.n_sweeps} sweeps of the "
            "coefficient solve"
        )
    fitted = model if fit.method == "snmf" else None
    factorization = Factorization(
        method=fit.method,
        dictionary=dictionary.cpu(),
        coefficients=csr_matrix(vstack(parts), dtype=np.float32),
        offset=None,
        feature_names=[None] * dictionary.shape[0],
        objective_trace=fitted.objective_trace_ if fitted else [],
        explained_variance_trace=fitted.explained_variance_trace_ if fitted else [],
        n_iter=fitted.n_iter_ if fitted else count.n_sweeps,
        is_converged=fitted.is_converged_ if fitted else not count.n_unconverged,
        stop_reason=(solved_reason(fitted.stop_reason_, count.n_unconverged) if fitted else reason),
        explained_variance=on_fit.result().uncentred,
        explained_variance_centered=on_fit.result().centred,
        explained_variance_all_tokens=everywhere.result().uncentred,
        l0=n_above_zero / n_fit,
        n_dead_features=int((~is_alive).sum()),
        seconds=time.perf_counter() - begin,
        n_tokens_fit=n_fit,
        n_massive_excluded=int(source.is_massive.sum()),
        seed=fit.seed,
    )
    return factorization, count
