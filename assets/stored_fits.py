"""What later stages read of a fit and of a site's activations, out of the lake."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resources.lake import Lake
from resources.study import FitSpec, SiteSpec

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from assets.activations.shards import ActivationReader


@dataclass(frozen=True)
class StoredFit:
    """A fit read back: its row of `factorizations`, and its dictionary in the order of ids."""

    row: dict[str, Any]
    feature_ids: list[int]
    dictionary: 'Float[Tensor, "k d"]'


def fitted_row(lake: Lake, spec: FitSpec) -> dict[str, Any]:
    """The row of `factorizations` that a later stage goes on from.

    Raises ValueError where there is none, where the fit failed, and where the site's activations
    were captured anew since, so that the coefficients are of other tokens.
    """
    from assets.activations.tables import ACTIVATION_SHARDS
    from assets.factorization import frames
    from assets.factorization.tables import FACTORIZATIONS

    shards = lake.read(ACTIVATION_SHARDS, {"site": spec.site.key}, columns=("sha256",))
    return frames.fitted_row(lake.read(FACTORIZATIONS, spec.partition), shards["sha256"].to_list())


def stored_fit(lake: Lake, spec: FitSpec) -> StoredFit:
    """The fit that a later stage goes on from. Raises ValueError as `fitted_row` does."""
    from assets.factorization.frames import dictionary_matrix, feature_ids_of
    from assets.factorization.tables import DICTIONARY

    row = fitted_row(lake, spec)
    ids = sorted(feature_ids_of(row))
    frame = lake.read(DICTIONARY, spec.partition)
    return StoredFit(row, ids, dictionary_matrix(frame, ids, row["width"]))


def stored_activations(lake: Lake, site: SiteSpec) -> "ActivationReader":
    """A site's activations, read shard by shard when asked."""
    from assets.activations.shards import ActivationReader, ShardRecord
    from assets.activations.tables import ACTIVATION_SHARDS

    rows = lake.read(ACTIVATION_SHARDS, {"site": site.key}).to_dicts()
    return ActivationReader([ShardRecord.from_row(row) for row in rows], lake.shards_folder)
