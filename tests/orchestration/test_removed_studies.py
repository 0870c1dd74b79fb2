"""A study whose file is gone leaves the gold view, whatever fails on the way there."""

import dagster as dg
import pytest
from any_rows import any_rows
from mini_study import write_study
from platform_of_test import Platform

from assets.catalogue.definitions import RECIPE as CATALOGUE
from assets.catalogue.tables import FEATURES
from orchestration import partition_sync
from orchestration.gold_view import leave_gold_view
from orchestration.partition_sync import study_files
from orchestration.study_lock import study_lock
from resources.lake import LakeResource
from resources.lake_commit import Commit
from resources.ledger import Entry, Ledger
from resources.study_files import StudiesResource

FITS = ("pca-k004", "neurons-k004")
N_ROWS = 3


@pytest.fixture
def removed(platform: Platform) -> Platform:
    """A platform that made three studies: the file of `mini` is gone, `kept` can't be run on.

    `elsewhere` was made in the same lake from another folder, by another instance.
    """
    studies = platform.root / "studies"
    write_study(studies)
    write_study(studies, name="kept", corpus={"path": str(platform.root / "nowhere.jsonl")})
    look(platform)
    for study in ("mini", "kept", "elsewhere"):
        plant_gold(platform, study)
    (studies / "mini.yaml").unlink()
    return platform


def plant_gold(platform: Platform, study: str) -> None:
    """Rows of `features` and their ledger rows, for two fits at a site of the study."""
    # The first is the site of the mini study.
    site, ledger = f"{study}:smollm2-135m-instruct@L20.mlp_hidden", Ledger(platform.lake)
    fits = FITS if study != "kept" else ("diff_means",)
    for fit in fits:
        commit = Commit("features", f"{site} | {fit}", "run-1")
        where = {"site": site, "fit": fit}
        platform.lake.replace({FEATURES: any_rows(FEATURES, N_ROWS, 0)}, where, commit)
        made = Entry(
            study, "run-1", CATALOGUE.name, f"{site} | {fit}", "computed", "first time", versions={}
        )
        ledger.append([made], run_id="run-1")


def look(platform: Platform) -> str:
    """What the sensor says."""
    reason = study_files(
        dg.build_sensor_context(instance=platform.instance),
        studies=StudiesResource(folder=str(platform.root / "studies")),
        lake=LakeResource(root=str(platform.lake.root)),
    )
    assert isinstance(reason, dg.SkipReason)
    return str(reason.skip_message)


def n_rows(platform: Platform) -> dict[str, int]:
    """Rows of `features` by study."""
    query = "SELECT split_part(site, ':', 1), count(*) FROM features GROUP BY ALL"
    return dict(platform.lake.query(query).rows())


def known(platform: Platform) -> set[str]:
    return set(platform.instance.get_dynamic_partitions("study"))


BEFORE = {"mini": 2 * N_ROWS, "kept": N_ROWS, "elsewhere": 2 * N_ROWS}
AFTER = {"kept": N_ROWS, "elsewhere": 2 * N_ROWS}


def test_a_look_that_fails_halfway_is_made_up_for_by_the_next(
    removed: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_at_the_second(ledger: Ledger, entry: Entry, run_id: str) -> int:
        if entry.partition.endswith(FITS[0]):
            return leave_gold_view(ledger, entry, run_id)
        raise OSError("the disk is full")

    monkeypatch.setattr(partition_sync, "leave_gold_view", fails_at_the_second)
    with pytest.raises(OSError, match="the disk is full"):
        look(removed)
    assert n_rows(removed)["mini"] in (N_ROWS, 2 * N_ROWS)  # the order is the ledger's
    assert known(removed) == {"mini", "kept"}
    monkeypatch.undo()
    assert "study mini forgotten" in look(removed)
    assert n_rows(removed) == AFTER
    assert known(removed) == {"kept"}
    # Once is enough.
    snapshot = removed.lake.query("SELECT max(snapshot_id) FROM ducklake_snapshots('lake')").item()
    assert look(removed) == "partitions are those of the studies"
    snapshots = removed.lake.query("SELECT max(snapshot_id) FROM ducklake_snapshots('lake')")
    assert snapshots.item() == snapshot


def test_a_study_whose_run_goes_on_leaves_after_it(removed: Platform) -> None:
    with study_lock("mini", removed.lake.root):
        assert "study mini: its file is gone, and its run still goes on" in look(removed)
        assert n_rows(removed) == BEFORE
        assert known(removed) == {"mini", "kept"}
    look(removed)
    assert n_rows(removed) == AFTER
    assert known(removed) == {"kept"}


def test_a_refused_run_leaves_the_removal_to_the_next_one(removed: Platform) -> None:
    with study_lock("kept", removed.lake.root):
        assert not removed.materialize("kept").success
    assert n_rows(removed) == BEFORE
    # It fails for want of its corpus, which keeps nothing else from leaving.
    assert not removed.materialize("kept").success
    assert n_rows(removed) == AFTER
    assert known(removed) == {"kept"}


def test_beside_a_file_that_cannot_be_read_nothing_is_forgotten(removed: Platform) -> None:
    broken = removed.root / "studies" / "broken.yaml"
    broken.write_text("name: [")
    assert "broken.yaml" in look(removed)
    assert n_rows(removed) == BEFORE
    assert known(removed) == {"mini", "kept"}
    broken.unlink()
    look(removed)
    assert n_rows(removed) == AFTER
