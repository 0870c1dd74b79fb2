"""One document added, edited, removed: only what depends on it is made again, and rightly so.

The lake that grew by a document is compared with one in which every stage after the factorization
ran for the first time on the same documents. Their factorization goes on from the same fit: what a
fit of all documents at once would find is another dictionary.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from counting_llm import counting_llm, environment_of
from lake_contents import (
    HISTORY,
    contents,
    decisions,
    differing_columns,
    ledger_since,
    total,
)
from mini_study import QUICK_STUDY, write_quick_study
from misbehaving_endpoint import Endpoint
from only_fits import make_only_fits
from platform_of_test import Platform

from assets.activations.tables import TOKENS
from assets.corpus.sources import BUNDLED_FOLDER
from assets.corpus.tables import DOCUMENTS
from assets.evidence.tables import CONTEXTS
from assets.factorization.tables import COEFFICIENTS
from assets.faithfulness.tables import FEATURE_FAITHFULNESS
from assets.labels.tables import LABELS
from assets.steering.tables import CALIBRATIONS, STEERED_TEXTS, STEERING_SCORES

pytestmark = pytest.mark.slow
CONCEPTS = ("Monday", "red", "French", "sushi", "football")
N_PER_CONCEPT = 20
OF_ONE_FEATURE = (LABELS, FEATURE_FAITHFULNESS, CALIBRATIONS, STEERED_TEXTS, STEERING_SCORES)
Corpus = list[dict[str, str]]


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with counting_llm() as endpoint:
        for name, value in environment_of(endpoint).items():
            monkeypatch.setenv(name, value)
        yield endpoint


def bundled() -> tuple[Corpus, dict[str, str]]:
    """Documents of the concepts, so many of each, and one more."""
    lines = (BUNDLED_FOLDER / "concepts.jsonl").read_text().splitlines()
    of_concept: dict[str, Corpus] = {concept: [] for concept in CONCEPTS}
    for row in map(json.loads, lines):
        of_concept.get(row["concept"], []).append(row)
    chosen = [row for rows in of_concept.values() for row in rows[:N_PER_CONCEPT]]
    return chosen, of_concept["Monday"][N_PER_CONCEPT]


def write(platform: Platform, corpus: Corpus) -> None:
    write_quick_study(
        platform.root / "studies",
        corpus={"path": "documents.jsonl"},
        fits=QUICK_STUDY["fits"][:1],
        activations={"max_tokens_per_document": 32, "shard_tokens": 256},
    )
    lines = "".join(json.dumps(row) + "\n" for row in corpus)
    (platform.root / "studies" / "documents.jsonl").write_text(lines)


def materialize(platform: Platform, corpus: Corpus) -> pl.DataFrame:
    """The study over these documents; the ledger's rows of the run."""
    write(platform, corpus)
    began = datetime.now(UTC)
    result = platform.materialize()
    assert result.success, [event.message for event in result.all_events if event.is_failure]
    return ledger_since(platform.lake, began)


def document_ids(platform: Platform, text: str) -> set[str]:
    rows = platform.lake.query("SELECT document_id FROM documents WHERE text = ?", [text])
    return set(rows["document_id"])


def kept_features(before: dict[str, pl.DataFrame], now: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Fit and id of the features whose contexts are the same rows as before."""
    frames = (tables[CONTEXTS.name].sort(CONTEXTS.key) for tables in (before, now))
    of_before, of_now = (
        dict(list(frame.group_by("fit", "feature_id", maintain_order=True))) for frame in frames
    )
    same = [key for key in of_before if key in of_now and of_before[key].equals(of_now[key])]
    schema = {"fit": pl.String, "feature_id": pl.Int32}
    return pl.DataFrame(same, schema=schema, orient="row")


def assert_others_kept(
    before: dict[str, pl.DataFrame], now: dict[str, pl.DataFrame]
) -> pl.DataFrame:
    """Features whose contexts are as before have the same rows everywhere; those features."""
    kept = kept_features(before, now)
    assert len(kept) > 0
    for table in OF_ONE_FEATURE:
        rows_before, rows_now = (
            frames[table.name].join(kept, on=["fit", "feature_id"], how="semi")
            for frames in (before, now)
        )
        assert rows_before.equals(rows_now), table.name
    return kept


def strongest_text(platform: Platform, feature_id: int) -> str:
    """Text of the document in which a feature is strongest."""
    return platform.lake.query(
        "SELECT d.text FROM contexts c JOIN documents d USING (document_id) "
        "WHERE feature_id = ? AND kind IN ('top', 'held_out') ORDER BY c.coefficient DESC LIMIT 1",
        [feature_id],
    ).item()


def rows_of_features(platform: Platform) -> dict[str, pl.DataFrame]:
    return {table.name: platform.lake.read(table) for table in (CONTEXTS, *OF_ONE_FEATURE)}


def test_only_what_depends_on_a_document_is_made_again(
    platform: Platform, tmp_path: Path, cache_folder: Path, llm: Endpoint
) -> None:
    corpus, one_more = bundled()
    lake = platform.lake
    first = materialize(platform, corpus)
    assert set(first["decision"]) == {"computed"}
    rows_before = rows_of_features(platform)
    whole = total(first, "forward_tokens"), total(first, "llm_calls_made")

    added = materialize(platform, [*corpus, one_more])
    assert set(decisions(added)["corpus"]) == {"computed"}
    n_tokens = lake.query(
        "SELECT count(*) FROM tokens WHERE document_id IN "
        "(SELECT document_id FROM documents WHERE text = ?)",
        [one_more["text"]],
    ).item()
    of_capture = added.filter(asset="activations")
    assert total(of_capture, "forward_tokens") == n_tokens
    assert set(lake.query("SELECT start FROM factorizations")["start"]) == {"projected"}
    assert total(added, "forward_tokens") <= 0.02 * whole[0]
    assert total(added, "llm_calls_made") <= 0.1 * whole[1]

    rows_added = rows_of_features(platform)
    assert len(assert_others_kept(rows_before, rows_added)) >= 3
    assert all(len(rows) > 0 for rows in rows_added.values())
    assert_like_a_first_run(platform, tmp_path / "first", cache_folder, corpus, one_more)

    # It begins like the strongest context of a feature, so that feature is as strong on it.
    feature = rows_added[LABELS.name].filter(kind="input", status="ok")["feature_id"][0]
    edited = one_more | {"text": f"{strongest_text(platform, feature)} {one_more['text']}"}
    (old_id,) = document_ids(platform, one_more["text"])
    changed = materialize(platform, [*corpus, edited])
    (new_id,) = document_ids(platform, edited["text"])
    assert old_id != new_id
    assert 0 < total(changed, "forward_tokens") < 0.5 * whole[0]
    assert 0 < total(changed, "llm_calls_made") < whole[1]
    of_labels = changed.filter(asset="labels", decision="computed").row(0, named=True)
    assert 0 < of_labels["rows_computed"] < of_labels["rows_reused"]
    assert of_labels["rows_computed"] + of_labels["rows_reused"] == of_labels["rows_out"]
    kept = assert_others_kept(rows_added, rows_of_features(platform))
    assert feature not in kept["feature_id"]
    for table in (DOCUMENTS, TOKENS, CONTEXTS):
        assert old_id not in set(lake.read(table)["document_id"]), table.name
    snapshot = lake.snapshots()["snapshot_id"][0]

    gone = materialize(platform, corpus)
    # Its own label's sentences of two nights ago may be scored again; nothing is asked or captured.
    assert total(gone.filter(asset="activations"), "forward_tokens") == 0
    assert total(gone, "llm_calls_made") == 0
    for table in (DOCUMENTS, TOKENS, CONTEXTS):
        assert new_id not in set(lake.read(table)["document_id"]), table.name
    for table in (DOCUMENTS, TOKENS):
        assert new_id in set(lake.read(table, version=snapshot)["document_id"]), table.name
    assert set(lake.read(COEFFICIENTS)["row"]) <= set(lake.read(TOKENS)["row"])

    nothing = materialize(platform, corpus)
    assert set(nothing["decision"]) == {"reused"}


def assert_like_a_first_run(
    platform: Platform, root: Path, cache_folder: Path, corpus: Corpus, one_more: dict[str, str]
) -> None:
    (root / "studies").mkdir(parents=True)
    with dg.DagsterInstance.ephemeral(str(root)) as instance:
        other = Platform(root, instance, cache_folder)
        write(other, corpus)
        make_only_fits(other)
        materialize(other, [*corpus, one_more])
        differing = differing_columns(contents(platform.lake), contents(other.lake))
    assert set(differing) <= HISTORY, differing
