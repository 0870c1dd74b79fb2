"""A change makes what depends on it and nothing else: counted in requests and by the ledger.

Each night follows the one before it in one lake. Another judge model: test_judge_llm.py; documents:
test_one_document_more.py; a rank or layer that leaves: test_gold_view.py.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest
from answering_endpoint import AnsweringEndpoint
from nightly_study import CALLS, NIGHTLY_STUDY, contents, night, write_nightly_study
from platform_of_test import Platform

from assets.detection.prompts import ACTIVATING_SENTENCE
from assets.labels.prompts import CONTEXTS_INPUT
from assets.labels.score_prompts import LABEL_FITS_TEXT
from assets.steering.prompts import CONCEPT_PROMPT, FLUENCY_PROMPT
from orchestration.recipes import OF_FIT, OF_SITE, OF_SITE_FITS

pytestmark = pytest.mark.slow
SITE = "mini:smollm2-135m-instruct@L20.mlp_hidden"
FIT = f"{SITE} | pca-k004"
STEERING = NIGHTLY_STUDY["steering"]
FITS = NIGHTLY_STUDY["fits"]
# How each prompt's requests begin.
KINDS = {
    "label": CONTEXTS_INPUT.system,
    "label score": LABEL_FITS_TEXT.system,
    "sentence": ACTIVATING_SENTENCE.system,
    "concept": CONCEPT_PROMPT.instruction,
    "fluency": FLUENCY_PROMPT.instruction,
}
# What an edited label that came out different leads to.
FOLLOWING = {"detection", "steering", "judge_free_scores", "steering_summaries", "catalogue"}


@dataclass
class Night:
    """What one night made and asked."""

    ledger: pl.DataFrame
    asked: Counter[str]

    @property
    def made(self) -> set[tuple[str, str]]:
        rows = self.ledger.filter(pl.col("decision") != "reused")
        return set(rows.select("asset", "partition").iter_rows())

    def row(self, asset: str, partition: str = FIT) -> dict[str, Any]:
        return self.ledger.filter(asset=asset, partition=partition).row(0, named=True)


class Nights:
    """Nights over one lake, each with its changes."""

    def __init__(self, platform: Platform, endpoint: AnsweringEndpoint) -> None:
        self.platform = platform
        self.endpoint = endpoint

    def night(self, **changes: Any) -> Night:
        write_nightly_study(self.platform.root / "studies", **changes)
        ledger = night(self.platform)
        asked = Counter(_kind(body) for body in self.endpoint.requests)
        self.endpoint.requests.clear()
        # Whatever was made: of the rows that there are, so many are as before and so many not.
        parted = ledger.select(pl.col("rows_reused") + pl.col("rows_computed")).to_series()
        computed = ledger["decision"] == "computed"
        assert parted.filter(computed).equals(ledger["rows_out"].filter(computed))
        return Night(ledger, asked)

    def rows(self, table: str, condition: str = "true") -> pl.DataFrame:
        return self.platform.lake.query(f"FROM {table} WHERE {condition} ORDER BY ALL")


def _kind(body: dict[str, Any]) -> str:
    system = body["messages"][0]["content"]
    (kind,) = [kind for kind, text in KINDS.items() if system.startswith(text)]
    return kind


@contextmanager
def edited(prompt: Any, **changes: str) -> Iterator[None]:
    """A prompt of another wording for a while, by whatever name it is known."""
    before = dict(prompt.__dict__)
    prompt.__dict__.pop("version", None)  # a hash that was kept
    prompt.__dict__.update(changes)
    try:
        yield
    finally:
        prompt.__dict__.clear()
        prompt.__dict__.update(before)


def test_each_change_makes_and_asks_what_it_concerns_and_no_more(
    platform: Platform, endpoint: AnsweringEndpoint
) -> None:
    nights = Nights(platform, endpoint)
    first = nights.night()
    assert first.asked == {"label": 1, "label score": 2, "sentence": 2, "concept": 3, "fluency": 3}
    assert sum(first.asked.values()) == CALLS
    assert first.ledger["rows_reused"].sum() == 0 < first.ledger["rows_computed"].sum()

    # The endpoint answers by the last message alone: this edit leaves the label as it was.
    with edited(CONTEXTS_INPUT, system=f"{CONTEXTS_INPUT.system} Be brief."):
        same_label = nights.night()
        assert same_label.asked == {"label": 1}
        assert same_label.made >= {("labels", FIT)}
        assert same_label.ledger["forward_tokens"].sum() == 0
        assert not {asset for asset, _ in same_label.made} & {"detection", "steering"}

        labels, texts = nights.rows("labels"), nights.rows("steered_texts")
        with edited(CONTEXTS_INPUT, template=f"Now: {CONTEXTS_INPUT.template}"):
            other_label = nights.night()
            # The label, and what is asked about it: fluency is of a text alone.
            assert other_label.asked == {
                "label": 1,
                "label score": 2,
                "sentence": 2,
                "concept": 3,
            }
            made = {(asset, FIT) for asset in {"labels", *FOLLOWING}} | {("comparison", SITE)}
            assert other_label.made == made
            costs = other_label.row("labels")
            assert costs["reason"].startswith("prompt label_input_contexts ")
            assert 0 < costs["rows_computed"] < costs["rows_reused"]
            changed = nights.rows("labels").join(
                labels, on=labels.columns, how="anti", nulls_equal=True
            )
            assert len(changed.filter(pl.col("label").is_not_null())) == 1
            assert nights.rows("steered_texts").equals(texts)
            assert other_label.row("steering")["forward_tokens"] == 0

            labels, scores = nights.rows("labels"), nights.rows("steering_scores")
            with edited(FLUENCY_PROMPT, instruction=f"{FLUENCY_PROMPT.instruction} Be strict."):
                judged = nights.night()
                assert judged.asked == {"fluency": 3}
                made = ("steering", "steering_summaries", "catalogue")
                assert judged.made == {(asset, FIT) for asset in made}
                assert judged.ledger["forward_tokens"].sum() == 0
                assert nights.rows("labels").equals(labels)
                assert nights.rows("steered_texts").equals(texts)
                key = ["feature_id", "sign", "text_index", "concept_rating"]
                again = nights.rows("steering_scores")
                assert again.select(key).sort(key).equals(scores.select(key).sort(key))
                assert judged.row("steering")["rows_computed"] == len(scores)

                assert_rows_come_back(nights)
                assert_additions_make_only_themselves(nights)


def assert_rows_come_back(nights: Nights) -> None:
    """What someone deleted is there again as it was, of that partition alone."""
    before = contents(nights.platform)
    deleting = nights.platform.lake.connect()
    for table in ("coefficients", "labels"):
        n_rows = len(nights.rows(table))
        deleting.execute(f"DELETE FROM {table} WHERE feature_id = 1")
        assert 0 < len(nights.rows(table)) < n_rows
    n_labels = len(nights.rows("labels"))
    put_back = nights.night()
    assert put_back.made == {("factorization", FIT), ("labels", FIT)}
    for asset in ("factorization", "labels"):
        row = put_back.row(asset)
        assert row["reason"] == (
            f"{row['rows_in']} rows were written, {row['rows_reused']} are there"
        )
        assert row["rows_in"] == row["rows_out"] and row["rows_computed"] > 0
    assert contents(nights.platform) == before and len(nights.rows("labels")) > n_labels
    assert put_back.asked == {} and put_back.ledger["forward_tokens"].sum() == 0


def assert_additions_make_only_themselves(nights: Nights) -> None:
    """A target KL, then a rank, then a layer: what was there stays, and is not asked about."""
    tables = ("calibrations", "steered_texts", "steering_scores", "judge_free_scores")
    before = {table: nights.rows(table) for table in tables}
    more = STEERING | {"target_kl_nats": [*STEERING["target_kl_nats"], 0.25]}
    targets = nights.night(steering=more)
    n_texts = len(nights.rows("steered_texts", "target_kl_nats = 0.25 AND status = 'ok'"))
    assert targets.asked == {"concept": n_texts, "fluency": n_texts} and n_texts > 0
    made = FOLLOWING - {"detection"}
    assert targets.made == {(asset, FIT) for asset in made} | {("comparison", SITE)}
    assert targets.row("steering")["rows_reused"] == targets.row("steering")["rows_in"]
    for table, rows in before.items():
        assert nights.rows(table, "target_kl_nats IS DISTINCT FROM 0.25").equals(rows), table
        added = nights.rows(table, "target_kl_nats = 0.25")
        assert len(added) > 0

    before = contents(nights.platform)
    rank = nights.night(steering=more, fits=[*FITS, FITS[0] | {"rank": 2}])
    new = f"{SITE} | pca-k002"
    assert rank.made == {(recipe.name, new) for recipe in OF_FIT} | {("comparison", SITE)}
    assert_kept(before, nights)

    before = contents(nights.platform)
    models = [{"source": "smollm2-135m-instruct", "layers": [20, 25]}]
    layer = nights.night(steering=more, fits=[*FITS, FITS[0] | {"rank": 2}], models=models)
    new = SITE.replace("L20", "L25")
    fits = {(recipe.name, f"{new} | pca-k00{rank}") for recipe in OF_FIT for rank in (2, 4)}
    assert layer.made == fits | {(recipe.name, new) for recipe in (*OF_SITE, *OF_SITE_FITS)}
    assert_kept(before, nights)


def assert_kept(before: dict[tuple[str, str, str], str], nights: Nights) -> None:
    """Every table but the comparison of the fits of a site is as it was."""
    now = contents(nights.platform)
    differing = {key for key in before if now[key] != before[key]}
    assert {asset for asset, *_ in differing} <= {"comparison"}
