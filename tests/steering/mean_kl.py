"""KL alone, of vectors that have no tokens of their own."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from assets.activations.suffix_forward import SuffixForward
from assets.steering.next_token_change import next_token_changes


def mean_kl(suffix: SuffixForward, vectors: Float[Tensor, "n d"], batch_rows: int) -> list[float]:
    """Mean over the prompts of KL(base ‖ steered) at the last token, in nats, for each vector."""
    changes = next_token_changes(suffix, vectors, [()] * len(vectors), batch_rows)
    return [change.kl_nats for change in changes]
