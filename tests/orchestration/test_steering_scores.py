"""Summaries and judge-free scores of a whole run, of controls too, and what changes cost them."""

from collections.abc import Iterator

import dagster as dg
import polars as pl
import pytest
from counting_llm import counting_llm, environment_of
from mini_study import MINI_STUDY, write_quick_study
from nightly_study import decisions
from platform_of_test import Platform

from assets.catalogue.tables import FEATURES
from assets.ledger.equal_rows import content_columns
from assets.shared.schema import Table
from assets.steering.feature_tables import JUDGE_FREE_SCORES, STEERING_SUMMARIES
from assets.steering.tables import CALIBRATIONS

pytestmark = pytest.mark.slow
STEERING = MINI_STUDY["steering"] | {"n_texts": 2, "neutral_prompts": ["I think that"]}
# Enough contexts for an input score.
EVIDENCE = MINI_STUDY["evidence"] | {"n_top": 6}


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with counting_llm() as endpoint:
        for name, value in environment_of(endpoint).items():
            monkeypatch.setenv(name, value)
        yield


def run(platform: Platform, **changes: object) -> pl.DataFrame:
    """Materializes the quick study; the ledger's rows of that run."""
    sections = {"steering": STEERING, "evidence": EVIDENCE}
    write_quick_study(platform.root / "studies", **(sections | changes))
    before = decisions(platform).height
    assert platform.materialize().success
    return decisions(platform).slice(before)


def stored(platform: Platform, table: Table) -> pl.DataFrame:
    return platform.lake.read(table).sort(table.key)


def test_scores_of_features_and_controls_and_what_a_change_costs(
    platform: Platform, llm: None
) -> None:
    run(platform)
    free, calibrated = stored(platform, JUDGE_FREE_SCORES), stored(platform, CALIBRATIONS)
    key = list(CALIBRATIONS.key)
    assert free.select(key).equals(calibrated.select(key))
    assert set(free["label_kind"]) == {"input"}
    summaries = stored(platform, STEERING_SUMMARIES)
    for fit in ("snmf-k006", "permuted-k004"):
        scored = free.filter(fit=fit)
        assert len(scored.drop_nulls(["output_score", "label_logprob_gain", "input_score"]))
        assert len(summaries.filter(fit=fit).drop_nulls("gain"))
    event = platform.instance.get_latest_materialization_event(dg.AssetKey("steering_summaries"))
    assert event is not None and event.asset_materialization is not None
    plot = event.asset_materialization.metadata["mean_score_by_target"].value
    assert "![Mean steering score" in str(plot)
    # The catalogue's best is the summaries'.
    best = summaries.filter(sign="either", pooling="best_kl").drop_nulls("score")
    both = best.join(stored(platform, FEATURES), on=["site", "fit", "feature_id"])
    assert both["score"].to_list() == pytest.approx(both["steering_score"].to_list())
    assert both["output_score"].null_count() == both["input_score"].null_count() == 0

    # One feature loses its label: strengths stay, and only its own rows are scored anew.
    made = run(platform, labels=MINI_STUDY["labels"] | {"max_features": 1})
    again = stored(platform, JUDGE_FREE_SCORES)
    lost = again.filter(pl.col("label").is_null())
    assert stored(platform, CALIBRATIONS).equals(calibrated)
    assert made.filter(asset="steering", decision="computed")["forward_tokens"].to_list() == [0]
    cost = made.filter(asset="judge_free_scores", decision="computed").row(0, named=True)
    assert cost["forward_tokens"] > 0
    of_fit = again.filter(fit="snmf-k006")
    content = ["site", "fit", *content_columns(JUDGE_FREE_SCORES)]
    as_before = of_fit.join(free, on=content, how="semi", nulls_equal=True)
    assert 0 < cost["rows_reused"] == len(as_before)
    assert 0 < cost["rows_computed"] == len(of_fit) - len(as_before) <= len(lost)
    own = ["site", "fit", "feature_id"]
    others = [frame.join(lost, on=own, how="anti") for frame in (free, again)]
    assert others[0].equals(others[1]) and len(others[0])

    # Other intervals run nothing but the summaries and what reads them.
    made = run(
        platform,
        labels=MINI_STUDY["labels"] | {"max_features": 1},
        steering=STEERING | {"confidence": 0.9},
    )
    computed = set(made.filter(decision="computed")["asset"])
    assert "steering_summaries" in computed and not computed & {"steering", "judge_free_scores"}
    assert made["forward_tokens"].sum() == made["llm_calls_made"].sum() == 0
