"""From a blind sheet to agreement: make rating-sheet, a person, make ratings, and the lake."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from mini_study import write_study
from planted_lineage import rows
from scipy.stats import spearmanr

from assets.evidence.tables import CONTEXTS
from assets.labels.tables import LABEL_SCORES, LLM_CALLS
from assets.ratings.folder import read_keys
from assets.ratings.tables import HUMAN_RATINGS, RATING_AGREEMENT
from assets.shared.schema import Table
from assets.steering.tables import STEERED_TEXTS, STEERING_SCORES
from orchestration import rating_sheet, take_ratings
from resources.lake import Lake, open_lake
from resources.lake_commit import Commit
from resources.ledger import Ledger
from tests.ratings.planted_ratings import FITS, SITE, judged_texts, scored_labels


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """A lake with judged texts and scored labels of the mini study, and the study's file."""
    for variable, folder in (("LAKE", "lake"), ("STUDIES", "studies")):
        monkeypatch.setenv(f"FEATURELAKE_{variable}", str(tmp_path / folder))
    write_study(tmp_path / "studies")
    planted = open_lake(tmp_path / "lake")
    texts, scores, models = judged_texts()
    of_labels, contexts = scored_labels()
    calls = models.with_columns(call_index=pl.int_range(pl.len()), stage=pl.lit("steering"))
    for fit in FITS:
        of_fit = {
            STEERED_TEXTS: texts.filter(fit=fit),
            STEERING_SCORES: scores.filter(fit=fit),
            LABEL_SCORES: of_labels.filter(fit=fit),
            CONTEXTS: contexts.filter(fit=fit),
            LLM_CALLS: calls if fit == FITS[0] else calls.clear(),
        }
        planted.replace(
            {table: _whole(table, frame) for table, frame in of_fit.items()},
            {"site": SITE, "fit": fit, "stage": "steering"},
            Commit("planted", fit, "run"),
        )
    with dg.DagsterInstance.ephemeral(str(tmp_path)) as instance:
        monkeypatch.setattr(take_ratings, "open_instance", lambda: instance)
        yield planted


def _whole(table: Table, frame: pl.DataFrame) -> pl.DataFrame:
    given = frame.drop("site", "fit", strict=False).to_dicts()
    return rows(table, *given).drop(table.partition_by, strict=False)


def rate(path: Path, rater: str, noise: float, lake: Lake) -> pl.DataFrame:
    """Fill a sheet in as somebody would who mostly agrees with the judge."""
    sheet = pl.read_csv(path, infer_schema=False)
    keys = read_keys(lake.root.parent / "studies" / "mini.ratings")
    judged = {(row["item"], row["question"]): row["judge_rating"] for row in keys.to_dicts()}
    draw = random.Random(rater)
    for question in ("concept", "fluency"):
        given = [
            str(min(2, max(0, round(judged[item, question] + draw.gauss(0, noise)))))
            for item in sheet["item"]
        ]
        sheet = sheet.with_columns(pl.Series(f"{question}_rating", given))
    sheet.with_columns(rater=pl.lit(rater)).write_csv(path)
    return sheet


def stored(lake: Lake, table: Table) -> pl.DataFrame:
    return lake.read(table, {"study": "mini"})


def test_a_sheet_goes_round(lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheets = {name: tmp_path / f"{name}.csv" for name in ("ada", "bo")}
    for path in sheets.values():
        assert rating_sheet.main({"STUDY": "mini", "N": "30", "OUT": str(path)}) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "make ratings STUDY=mini" in said
    # Three different base texts are planted.
    assert "3 unsteered (of 8 wanted)," in said and "no text is asked twice" in said
    blind = sheets["ada"].read_text()
    assert blind == sheets["bo"].read_text()
    assert not any(fit in blind for fit in FITS) and SITE not in blind
    for name, path in sheets.items():
        rate(path, name, 0.3, lake)
        assert take_ratings.main({"STUDY": "mini", "FILE": str(path)}) == 0
    assert "Agreement of people and judge" in capsys.readouterr().out

    ratings, agreement = stored(lake, HUMAN_RATINGS), stored(lake, RATING_AGREEMENT)
    assert len(ratings) == 2 * 2 * 30 and set(ratings["rater"]) == {"ada", "bo"}
    assert set(ratings["site"]) == {SITE} and set(ratings["fit"]) == set(FITS)
    assert {"0", "+", "-"} == set(ratings["sign"])
    texts, scores, _ = judged_texts()
    key = ["fit", "feature_id", "sign", "text_index"]
    by_item = ratings.filter(question="concept").group_by(*key).agg(pl.col("rating").mean())
    both = by_item.join(scores, on=key)
    row = agreement.filter(question="concept", compared="judge").row(0, named=True)
    assert row["n_items"] == len(both) == 30 and row["second"] == "graded small-judge"
    expected = spearmanr(both["rating"], both["concept_rating"]).statistic
    assert row["spearman"] == pytest.approx(expected) and expected > 0.6
    assert len(agreement.filter(compared="raters")) == 2
    shown = ratings.join(texts, on=key, suffix="_there")
    assert (shown["text"] == shown["text_there"]).all() and len(shown) == len(ratings)

    # The same again: the rows that are there. An edited sheet takes the place of its rows.
    assert take_ratings.main({"STUDY": "mini", "FILE": str(sheets["bo"])}) == 0
    assert ("ratings", "mini") in Ledger(lake).states_of("mini")
    assert stored(lake, HUMAN_RATINGS).equals(ratings)
    lines = sheets["bo"].read_text().splitlines()
    changed = ",".join([*lines[1].split(",")[:-3], "2", "2", "bo"])
    sheets["bo"].write_text("\n".join([lines[0], changed, *lines[2:]]))
    assert take_ratings.main({"STUDY": "mini", "FILE": str(sheets["bo"])}) == 0
    item = changed.split(",")[0]
    now = stored(lake, HUMAN_RATINGS)
    assert set(now.filter(item=item, rater="bo")["rating"]) == {2.0} and len(now) == len(ratings)
    untouched = pl.struct("item", "rater") != pl.lit({"item": item, "rater": "bo"})
    compared = [name for name in now.columns if name != "sheet_hash"]
    assert now.filter(untouched)[compared].equals(ratings.filter(untouched)[compared])


def test_a_wrong_sheet_changes_nothing(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sheet.csv"
    assert rating_sheet.main({"STUDY": "mini", "N": "6", "OUT": str(path)}) == 0
    rate(path, "ada", 0.3, lake)
    assert take_ratings.main({"STUDY": "mini", "FILE": str(path)}) == 0
    before = stored(lake, HUMAN_RATINGS)
    path.write_text(path.read_text().replace(",ada", ",", 1))
    assert take_ratings.main({"STUDY": "mini", "FILE": str(path)}) == 2
    said = capsys.readouterr().out
    assert "row 2, column rater" in said and "sheet.csv" in said
    assert take_ratings.main({"STUDY": "mini"}) == 0
    assert stored(lake, HUMAN_RATINGS).equals(before)


def test_labels_can_be_rated_too(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    options = {"STUDY": "mini", "N": "8", "KIND": "labels", "OUT": str(path)}
    assert rating_sheet.main(options) == 0
    sheet = pl.read_parquet(path)
    draw = random.Random(0)
    filled = sheet.with_columns(
        pl.Series("label_fit_rating", [draw.randrange(3) for _ in range(len(sheet))]),
        rater=pl.lit("ada"),
    )
    filled.write_parquet(path)
    assert take_ratings.main({"STUDY": "mini", "FILE": str(path)}) == 0
    row = stored(lake, RATING_AGREEMENT).row(0, named=True)
    assert (row["question"], row["second"]) == ("label_fit", "detection, negatives: random")
    assert row["n_items"] == 8 and set(stored(lake, HUMAN_RATINGS)["question"]) == {"label_fit"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no OUT given"),
        ({"OUT": "sheet.txt"}, "expected .csv or .parquet"),
        ({"OUT": "s.csv", "N": "none"}, "N is 'none'; expected a whole number such as 40"),
        ({"OUT": "s.csv", "KIND": "words"}, "expected texts or labels"),
        ({"OUT": "s.csv", "STUDY": "other"}, "no study named 'other'"),
    ],
)
def test_options_that_cannot_be_met(
    lake: Lake,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert rating_sheet.main({"STUDY": "mini"} | options) == 2
    assert said in " ".join(capsys.readouterr().out.split())
    (tmp_path / "there.csv").write_text("rated")
    assert rating_sheet.main({"STUDY": "mini", "OUT": "there.csv"}) == 2
    assert (tmp_path / "there.csv").read_text() == "rated"
    assert not list((tmp_path / "studies").glob("*.ratings/*")), "a key of no sheet"


def test_no_run_of_a_study_waits_for_ratings(lake: Lake) -> None:
    from orchestration.definitions import build_definitions

    jobs = {job.name: job for job in build_definitions().resolve_all_job_defs()}
    key = dg.AssetKey("human_ratings")
    having = {name for name, job in jobs.items() if key in job.asset_layer.executable_asset_keys}
    assert "ratings_job" in having
    assert not having & {"corpus_job", "activations_job", "features_job"}


def test_without_a_lake_there_is_nothing_to_rate_and_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, folder in (("LAKE", "lake"), ("STUDIES", "studies")):
        monkeypatch.setenv(f"FEATURELAKE_{variable}", str(tmp_path / folder))
    write_study(tmp_path / "studies")
    assert rating_sheet.main({"STUDY": "mini", "OUT": str(tmp_path / "s.csv")}) == 2
    assert "there is no lake" in capsys.readouterr().out
    assert not (tmp_path / "lake").exists() and not (tmp_path / "s.csv").exists()
