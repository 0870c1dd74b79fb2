"""Judge-free scores of every calibrated feature, sign and target KL: no LLM, so no judge to fool.

Input score (input_score.py), output score (output_score.py) and what steering adds to the label's
own tokens (label_logprob.py), at the calibrated strength. Null controls take the same path, so
their rows say what such numbers are worth. The label is the one that a judge of these texts is
asked about, by kind and sign (judged_labels.py); each kind gives a row, equal in the other scores.

What the model computed is taken over from previous rows of the same fingerprint: a new label costs
its own feature's rows alone, and calibrations nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from assets.activations.sites import ActivationSite
from assets.activations.suffix_forward import SuffixForward
from assets.shared.row_reuse import reusable_rows, row_fingerprint
from assets.steering.calibration import SIGN_FACTORS
from assets.steering.computed_rows import ComputedRows
from assets.steering.feature_tables import JUDGE_FREE_SCORES
from assets.steering.forward_count import count_forward_tokens
from assets.steering.input_score import FEWEST_CONTEXTS, InputScore
from assets.steering.judged_labels import ConceptLabel, Labels, label_of
from assets.steering.label_logprob import label_logprob_gains
from assets.steering.output_score import mean_output_scores

Progress = Callable[[int, int], None]
# What the model computes; all else is put together anew.
_COMPUTED = ("output_score", "output_score_base", "label_logprob_gain")
_MEASURES = ("input_score", "output_score", "label_logprob_gain")


@dataclass(frozen=True, eq=False)
class _Case:
    """One calibrated row with what it is scored by; `label_ids` are the label's tokens."""

    calibration: Mapping[str, Any]
    vector: Float[Tensor, " d"] | None
    own_tokens: tuple[int, ...]
    label: ConceptLabel
    label_ids: tuple[int, ...]
    fingerprint: str | None

    @property
    def steered_by(self) -> tuple[int, str, float]:
        """What tells its vector from others: feature, sign and target KL."""
        row = self.calibration
        return row["feature_id"], row["sign"], row["target_kl_nats"]


def judge_free_scores(
    model: Any,
    site: ActivationSite,
    calibrations: pl.DataFrame,
    directions: Mapping[int, Float[Tensor, " d"]],
    *,
    prompt_ids: Sequence[Sequence[int]],
    own_tokens: Mapping[tuple[int, str], Sequence[int]],
    labels: Labels,
    label_ids: Mapping[str, Sequence[int]],
    kinds: Mapping[str, Sequence[str]],
    input_scores: Mapping[tuple[int, str], InputScore],
    batch_rows: int = 16,
    made_by: Sequence[str] = (),
    previous: pl.DataFrame | None = None,
    on_progress: Progress | None = None,
) -> ComputedRows:
    """A row for each of `calibrations` (of one fit) and kind of label, whatever came of it.

    `directions` maps feature ids to unit directions; `own_tokens` maps (feature, sign) to the first
    tokens of that direction's vocabulary projection; `kinds` maps signs to the kinds of label that
    are scored (kinds_by_sign); `label_ids` maps the text of each of `labels` to its tokens.
    `made_by` is what else decides the numbers (code version, model revision, dtype); rows of
    `previous` (of the table) made from the same are taken over. `on_progress` gets (rows scored,
    rows to score).
    """
    common = (*made_by, site.key, batch_rows, repr([list(ids) for ids in prompt_ids]))
    cases = [
        _case(row, directions, own_tokens, label, label_ids, common)
        for row in calibrations.iter_rows(named=True)
        for label in (label_of(labels, row["feature_id"], kind) for kind in kinds[row["sign"]])
    ]
    wanted = {case.fingerprint: case for case in cases if case.fingerprint is not None}
    kept = reusable_rows(JUDGE_FREE_SCORES.empty() if previous is None else previous, wanted)
    computed: dict[str, dict[str, float | None]] = {
        made_from: rows.select(_COMPUTED).row(0, named=True) for made_from, rows in kept.items()
    }
    missing = {made_from: case for made_from, case in wanted.items() if made_from not in kept}
    n_evaluated = 0
    with count_forward_tokens(model) as count:
        if missing:
            found, n_evaluated = _compute(model, site, prompt_ids, missing, batch_rows, on_progress)
            computed |= found
    n_computed = sum(case.fingerprint in missing for case in cases)
    n_scored = sum(case.fingerprint is not None for case in cases)
    rows = [_row(case, computed, input_scores) for case in cases]
    schema = JUDGE_FREE_SCORES.empty().drop(JUDGE_FREE_SCORES.partition_by).schema
    return ComputedRows(
        rows=pl.DataFrame(rows, schema=schema),
        layer_token_evaluations=n_evaluated,
        forward_tokens=count.n_tokens,
        rows_reused=n_scored - n_computed,
        rows_computed=n_computed,
    )


def _case(
    row: Mapping[str, Any],
    directions: Mapping[int, Tensor],
    own_tokens: Mapping[tuple[int, str], Sequence[int]],
    label: ConceptLabel,
    label_ids: Mapping[str, Sequence[int]],
    common: Sequence[Any],
) -> _Case:
    feature_id, sign = row["feature_id"], row["sign"]
    own = tuple(own_tokens.get((feature_id, sign), ()))
    ids = () if label.label is None else tuple(label_ids[label.label])
    if row["strength"] is None or not (own or ids):
        return _Case(row, None, own, label, ids, None)
    direction = directions[feature_id]
    made_from = row_fingerprint(
        *common,
        direction.detach().float().cpu().numpy(),
        sign,
        row["strength"],
        np.array(own, dtype=np.int64),
        np.array(ids, dtype=np.int64),
    )
    vector = direction * (SIGN_FACTORS[sign] * row["strength"])
    return _Case(row, vector, own, label, ids, made_from)


def _compute(
    model: Any,
    site: ActivationSite,
    prompt_ids: Sequence[Sequence[int]],
    cases: Mapping[str, _Case],
    batch_rows: int,
    on_progress: Progress | None,
) -> tuple[dict[str, dict[str, float | None]], int]:
    """What the model says of each case, by fingerprint, and the layer-token evaluations."""
    suffix = SuffixForward(model, site, prompt_ids)
    found: dict[str, dict[str, float | None]] = {name: dict.fromkeys(_COMPUTED) for name in cases}
    # Rows that differ by their label alone have one output score.
    by_vector: dict[tuple[int, str, float], list[str]] = {}
    for name, case in cases.items():
        if case.own_tokens:
            by_vector.setdefault(case.steered_by, []).append(name)
    if by_vector:
        one_of_each = [names[0] for names in by_vector.values()]
        scores = mean_output_scores(
            suffix,
            _vectors(cases, one_of_each),
            [cases[name].own_tokens for name in one_of_each],
            batch_rows,
        )
        for names, (steered, base) in zip(by_vector.values(), scores, strict=True):
            for name in names:
                found[name] |= {"output_score": steered, "output_score_base": base}
    n_evaluated = suffix.layer_token_evaluations
    by_label: dict[tuple[int, ...], list[str]] = {}
    for name, case in cases.items():
        by_label.setdefault(case.label_ids, []).append(name)
    n_done = 0
    for label_ids, names in by_label.items():
        if label_ids:
            gains, n_more = label_logprob_gains(
                model, site, prompt_ids, label_ids, _vectors(cases, names), batch_rows
            )
            n_evaluated += n_more
            for name, gain in zip(names, gains, strict=True):
                found[name]["label_logprob_gain"] = gain
        n_done += len(names)
        if on_progress is not None:
            on_progress(n_done, len(cases))
    return found, n_evaluated


def _vectors(cases: Mapping[str, _Case], names: Sequence[str]) -> Float[Tensor, "n d"]:
    vectors = [vector for name in names if (vector := cases[name].vector) is not None]
    return torch.stack(vectors)


def _row(
    case: _Case,
    computed: Mapping[str, Mapping[str, float | None]],
    input_scores: Mapping[tuple[int, str], InputScore],
) -> dict[str, Any]:
    calibration = case.calibration
    feature_id, sign = calibration["feature_id"], calibration["sign"]
    values = computed[case.fingerprint] if case.fingerprint else dict.fromkeys(_COMPUTED)
    read = input_scores.get((feature_id, sign))
    row: dict[str, Any] = {
        "feature_id": feature_id,
        "sign": sign,
        "target_kl_nats": calibration["target_kl_nats"],
        "strength": calibration["strength"],
        "input_score": None if read is None else read.value,
        "n_contexts": None if read is None else read.n_contexts,
        "n_own_tokens": len(case.own_tokens),
        "label": case.label.label,
        "label_kind": case.label.kind,
        "n_label_tokens": len(case.label_ids),
        "row_fingerprint": case.fingerprint,
        **{name: values[name] for name in _COMPUTED},
    }
    missing = [name for name in _MEASURES if row[name] is None]
    if not missing:
        return row | {"status": "ok", "reason": None}
    status = "none" if len(missing) == len(_MEASURES) else "partial"
    return row | {"status": status, "reason": "; ".join(_why(case, read, missing))}


def _why(case: _Case, read: InputScore | None, missing: Sequence[str]) -> list[str]:
    """Why scores are NULL, each reason once."""
    reasons: list[str] = []
    if read is None:
        reasons.append("input_score: no vocabulary projection or no contexts")
    elif read.value is None:
        few = f"{read.n_contexts} contexts; expected {FEWEST_CONTEXTS} at least (evidence.n_top)"
        reasons.append(f"input_score: not attempted, {few}")
    if case.calibration["strength"] is None:
        what = ", ".join(name for name in missing if name != "input_score")
        why = f"calibration {case.calibration['status']}, {case.calibration['reason']}"
        return [*reasons, f"{what}: {why}"]
    if not case.own_tokens:
        reasons.append("output_score: no vocabulary projection")
    if not case.label_ids:
        reasons.append(f"label_logprob_gain: {case.label.reason or 'the label has no tokens'}")
    return reasons
