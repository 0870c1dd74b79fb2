"""Dictionary row, coefficients ← fit ← earlier fits; activations (model) ← documents (files)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assets.activations.tables import ACTIVATION_SHARDS
from assets.corpus.tables import DOCUMENTS
from assets.factorization.comparison_tables import FEATURE_MATCHES
from assets.factorization.tables import COEFFICIENTS, DICTIONARY, FACTORIZATIONS
from resources.lake_tables import LakeError
from resources.lineage.provenance import Made
from resources.lineage.step import FeatureRows, Step

N_NEURONS = 10
FIT_SETTINGS = ("solver", "keep_fraction", "coefficient_penalty", "column_scaling", "init", "seed")
FIT_RESULTS = ("n_features", "explained_variance", "l0", "n_iter", "is_converged", "stop_reason")


def fit_steps(rows: FeatureRows) -> list[Step]:
    weights = sorted(rows.rows(DICTIONARY), key=lambda row: -abs(row["weight"]))
    strongest = [(row["neuron"], row["weight"]) for row in weights[:N_NEURONS]]
    coefficients = [row["coefficient"] for row in rows.rows(COEFFICIENTS)]
    most = max(coefficients, default=None)
    return [
        Step(
            "dictionary_row",
            f"{len(weights)} neurons, strongest "
            + ", ".join(f"{neuron} ({weight:+.2f})" for neuron, weight in strongest),
            {"n_neurons": len(weights), "neurons": strongest},
            rows.made(DICTIONARY),
        ),
        Step(
            "coefficients",
            f"above zero on {len(coefficients)} tokens"
            + ("" if most is None else f", at most {most:.3g}"),
            {"n_active_tokens": len(coefficients), "max_coefficient": most},
            rows.made(COEFFICIENTS),
        ),
        _fit_step(rows),
    ]


def _fit_step(rows: FeatureRows) -> Step:
    row = rows.lake.rows(FACTORIZATIONS, rows.key.partition)[0]
    made = rows.made(FACTORIZATIONS)
    match = next(
        (one for one in rows.rows(FEATURE_MATCHES) if one["kind"] in ("kept", "new")), None
    )
    earlier = _earlier_fits(rows, row["started_from_snapshot"])
    return Step(
        "fit",
        _fit_text(row) + _match_text(match),
        _fit_facts(row, made) | {"match": match},
        made,
        (*earlier, _activations_step(rows)),
    )


def _earlier_fits(rows: FeatureRows, snapshot: int | None) -> list[Step]:
    """The fits that this one goes on from, newest first, as far as their versions are held."""
    steps = []
    while snapshot is not None:
        found: list[dict[str, Any]] = []
        try:
            found = rows.lake.rows(FACTORIZATIONS, rows.key.partition, version=snapshot)
        except LakeError:
            said = f"of snapshot {snapshot}, which was expired: what it went on from is not known"
        else:
            said = f"of snapshot {snapshot}: " + (_fit_text(found[0]) if found else "not there")
        facts = {"snapshot": snapshot, "is_snapshot_held": rows.lake.is_held(snapshot)}
        steps.append(Step("earlier_fit", said, facts | (_fit_facts(found[0]) if found else {})))
        before = found[0]["started_from_snapshot"] if found else None
        # Older always: a damaged table must not be followed for ever.
        snapshot = before if before is not None and before < snapshot else None
    return steps


def _fit_text(row: Mapping[str, Any]) -> str:
    if row["status"] != "ok":
        return f"{row['method']}, {row['status']}: {row['reason']}"
    start = row["start"] or "start not recorded"
    origin = row["started_from_snapshot"]
    return (
        f"{row['method']}, {row['n_features']} features on {row['n_tokens']} tokens, "
        + (f"{start} start" if row["start"] in ("cold", "warm") else start)
        + (f" from snapshot {origin}" if origin is not None else "")
    )


def _match_text(match: Mapping[str, Any] | None) -> str:
    if match is None or match["kind"] != "kept":
        return ""
    cosine = "" if match["cosine"] is None else f", cosine {match['cosine']:.3f}"
    return f"; the feature goes on {match['previous_feature_id']} of it{cosine}"


def _fit_facts(row: Mapping[str, Any], made: Made | None = None) -> dict[str, Any]:
    names = ("method", "rank", *FIT_SETTINGS, *FIT_RESULTS, "start", "started_from_snapshot")
    parts = {} if made is None else made.parts
    settings = {
        name.removeprefix("settings.fit."): value
        for name, value in parts.items()
        if name.startswith("settings.fit.")
    }
    return {name: row[name] for name in names} | ({"settings": settings} if settings else {})


def _activations_step(rows: FeatureRows) -> Step:
    site = {"site": rows.key.site}
    made = rows.lake.made(ACTIVATION_SHARDS, site)
    shards = rows.lake.rows(ACTIVATION_SHARDS, site)
    revision = made.parts.get("model.revision")
    return Step(
        "activations",
        f"{sum(row['n_rows'] for row in shards)} tokens of {rows.key.site} in {len(shards)} "
        f"{'shard' if len(shards) == 1 else 'shards'}; model revision "
        f"{revision or 'not recorded'}",
        {
            "model_source": made.parts.get("settings.model.source"),
            "model_revision": revision,
            "shards": [
                {name: row[name] for name in ("path", "sha256", "n_rows")} for row in shards
            ],
        },
        made,
        (_documents_step(rows),),
    )


def _documents_step(rows: FeatureRows) -> Step:
    study = {"study": rows.key.study}
    made = rows.lake.made(DOCUMENTS, study)
    frame = rows.lake.frame(DOCUMENTS, {**study, "status": "ok"})
    files = made.parts.get("observed.corpus_files")
    sources = frame["source"].unique().sort().to_list()
    return Step(
        "documents",
        f"{len(frame)} of {len(sources)} {'file' if len(sources) == 1 else 'files'}: "
        + ", ".join(sources[:3])
        + (" …" if len(sources) > 3 else ""),
        {"n_documents": len(frame), "sources": sources, "files_hash": files},
        made,
    )
