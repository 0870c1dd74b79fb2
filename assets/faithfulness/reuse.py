"""What a run of a document is known by: a hash of all that decides its sums.

    every run               code, model revision, number type, site; the document's tokens
    mean                    the mean row
    reconstruction          the offset, the coefficients of features active in the document, and
                            those features' rows of the dictionary
    …_keep_massive          the same, and which tokens are massive; with none, the same run
    ablation                the feature's coefficients in the document, and its dictionary row

So equal fingerprints mean equal sums (runs.py): a document more is its own runs, a dictionary row
more its own. Ids are no part: documents of the same tokens are one run. How rows are found again is
shared/row_reuse.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
from scipy.sparse import csr_matrix
from torch import Tensor

from assets.activations.sites import ActivationSite
from assets.faithfulness.fit import Fit
from assets.faithfulness.runs import DocumentRun
from assets.faithfulness.sample import SampledDocument
from assets.shared.row_reuse import row_fingerprint


def run_fingerprints(
    runs: Iterable[DocumentRun],
    site: ActivationSite,
    sample: Sequence[SampledDocument],
    coefficients: Sequence[csr_matrix],
    fit: Fit,
    made_with: Sequence[str],
) -> dict[DocumentRun, str]:
    """The fingerprint of each run. `coefficients` are those of the sample's documents; `made_with`
    are code version, model revision and number type."""
    mean = _digest(fit.mean_row)
    offset = None if fit.offset is None else _digest(fit.offset)

    # A dictionary row counts in many runs, a document in a few.
    @cache
    def direction(feature: int) -> str:
        return _digest(fit.dictionary[feature])

    @cache
    def base(document: int) -> str:
        one = sample[document].document
        tokens = np.array(one.token_ids, dtype=np.int64)
        return row_fingerprint(*made_with, site.key, tokens, one.n_special_prefix)

    @cache
    def rebuilt(document: int) -> str:
        own = coefficients[document]
        active = np.unique(own.indices)
        values = own[:, active].toarray()
        return row_fingerprint(offset, values, *(direction(int(i)) for i in active))

    def parts(run: DocumentRun) -> tuple[str | np.ndarray, ...]:
        start = base(run.document)
        if run.feature is not None:
            column = coefficients[run.document][:, [run.feature]].toarray()[:, 0]
            return start, run.replacement, column, direction(run.feature)
        if run.replacement == "mean":
            return start, run.replacement, mean
        if run.replacement in ("identity", "zero"):
            return start, run.replacement
        is_kept = np.array(sample[run.document].is_massive)
        if run.replacement == "reconstruction" or not is_kept.any():
            return start, "reconstruction", rebuilt(run.document)
        return start, run.replacement, rebuilt(run.document), is_kept

    return {run: row_fingerprint(*parts(run)) for run in runs}


def _digest(tensor: Tensor) -> str:
    return row_fingerprint(tensor.detach().float().cpu().numpy())
