"""Whether steering by groups would give the rows that are there: one fingerprint for all of them.

All interventions of a fit are measured together, so they are run again together: when a direction,
a measured token, a prompt, a setting, the model or the code is another. How rows are found again is
shared/row_reuse.py; running them is group_steering.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from assets.hierarchy.group_steering import Intervention, MeasuredToken
from assets.shared.row_reuse import row_fingerprint


def steering_fingerprint(
    interventions: Sequence[Intervention],
    tokens: Sequence[MeasuredToken],
    prompt_ids: Sequence[Sequence[int]],
    made_with: Sequence[str | float],
) -> str:
    """Hash (16 hex digits) of all that the rows of `group_steering` come from.

    `made_with`: settings of the calibration, code version, model revision, number type and site.
    """
    parts: list[str | int | float | np.ndarray | None] = [*made_with]
    for one in interventions:
        parts += [one.group_name, one.intervention, one.steered, one.draw, one.seed]
        parts.append(one.direction.detach().float().cpu().numpy())
    for token in tokens:
        parts += [token.concept, token.token_id, len(token.shared_with), *token.shared_with]
    parts += [np.array(ids, dtype=np.int64) for ids in prompt_ids]
    return row_fingerprint(*parts)
