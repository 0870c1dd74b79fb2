"""What SemiNMF refuses before a fit begins: settings out of their range, a start of another shape.

scikit-learn's estimators take any settings and check them when they are fitted. Activations are
checked by inputs.py, a study's settings by config.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from jaxtyping import Float
from torch import Tensor

from assets.factorization.initialization import INITS
from assets.factorization.inputs import Activations, FactorizationError, as_matrix

if TYPE_CHECKING:
    from assets.factorization.semi_nmf import SemiNMF

Solver = Literal["coordinate", "multiplicative"]
SOLVERS: tuple[Solver, ...] = ("coordinate", "multiplicative")


def check_settings(estimator: SemiNMF) -> None:
    """Raise FactorizationError for the first setting that admits no fit (the rank: check_rank)."""
    for name, allowed in (("solver", SOLVERS), ("init", INITS)):
        value = getattr(estimator, name)
        if value not in allowed:
            raise FactorizationError(
                f"{name} {value!r} found; expected one of {', '.join(allowed)}"
            )
    if not 0 < estimator.keep_fraction <= 1:
        raise FactorizationError(
            f"keep_fraction {estimator.keep_fraction} found; expected above 0 and at most 1"
        )
    if estimator.coefficient_penalty < 0:
        raise FactorizationError(
            f"coefficient_penalty {estimator.coefficient_penalty} found; expected 0 or more"
        )
    if not 0 <= estimator.penalty_concavity < 1:
        raise FactorizationError(
            f"penalty_concavity {estimator.penalty_concavity} found; expected 0 or more and below 1"
        )
    for name in ("column_scaling", "row_scaling"):
        value = getattr(estimator, name)
        if not 0 <= value <= 1:
            raise FactorizationError(f"{name} {value} found; expected from 0 to 1")
    if estimator.max_iter < 1:
        raise FactorizationError(f"max_iter {estimator.max_iter} found; expected at least 1")


def start_rows(start: Activations, n_components: int, width: int) -> Float[Tensor, "k d"]:
    """A dictionary given to go on from, as a matrix.

    Raises FactorizationError unless it is finite and of shape [n_components, width].
    """
    rows = as_matrix(start)
    if rows.shape != (n_components, width):
        raise FactorizationError(
            f"found a start dictionary of shape {list(rows.shape)}; expected "
            f"[{n_components}, {width}], one row a feature"
        )
    return rows
