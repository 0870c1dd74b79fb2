"""A fit, layer or study that is named no more leaves `features`, and stays in history."""

import dagster as dg
import pytest
from answering_endpoint import AnsweringEndpoint
from nightly_study import NIGHTLY_STUDY, decisions, write_nightly_study
from platform_of_test import Platform

from orchestration.partition_sync import study_files
from resources.lake import LakeResource
from resources.study_files import StudiesResource

pytestmark = pytest.mark.slow
PCA, NEURONS = NIGHTLY_STUDY["fits"][0], {"method": "neurons", "rank": 4}
GOLD = ("features", "method_comparison")


def fits_in(platform: Platform, table: str, at: str = "") -> set[str]:
    return set(platform.lake.query(f"SELECT DISTINCT fit FROM {table} {at}")["fit"])


def test_what_no_study_names_leaves_the_gold_view_alone(
    platform: Platform, endpoint: AnsweringEndpoint
) -> None:
    studies = platform.root / "studies"
    write_nightly_study(studies, fits=[PCA, NEURONS])
    assert platform.materialize().success
    endpoint.take_requests()
    both = {"pca-k004", "neurons-k004"}
    assert all(fits_in(platform, table) == both for table in (*GOLD, "labels"))
    version = platform.lake.query("SELECT max(snapshot_id) FROM features").item()
    before = platform.lake.query("FROM features ORDER BY ALL")

    write_nightly_study(studies, fits=[PCA])
    n_decisions = decisions(platform).height
    assert platform.materialize().success
    assert all(fits_in(platform, table) == {"pca-k004"} for table in GOLD)
    # What it was joined from stays, and so do older versions.
    assert fits_in(platform, "labels") == both
    assert fits_in(platform, "features", f"AT (VERSION => {version})") == both
    lost = platform.lake.query("FROM catalogue_changes WHERE fit = 'neurons-k004'")
    assert set(lost["change"]) == {"lost"} and len(lost) == 4
    rows = decisions(platform).slice(n_decisions)
    (removed,) = rows.filter(decision="removed").to_dicts()
    assert (removed["asset"], removed["rows_in"], removed["rows_out"]) == ("catalogue", 4, 0)
    assert removed["partition"].endswith("| neurons-k004")
    # Once is enough.
    n_decisions = decisions(platform).height
    assert platform.materialize().success
    assert set(decisions(platform).slice(n_decisions)["decision"]) == {"reused"}

    # It comes back as it was, and nothing else is made for it.
    write_nightly_study(studies, fits=[PCA, NEURONS])
    n_decisions = decisions(platform).height
    assert platform.materialize().success
    assert platform.lake.query("FROM features ORDER BY ALL").equals(before)
    made = decisions(platform).slice(n_decisions).filter(decision="computed")
    assert sorted(made["asset"]) == ["catalogue", "comparison"]
    assert made.filter(asset="catalogue")["reason"].item().startswith("removed before: ")
    assert endpoint.take_requests() == []

    # A study whose file is gone leaves as a whole, by the sensor that sees it.
    (studies / "mini.yaml").unlink()
    context = dg.build_sensor_context(instance=platform.instance)
    resources = {
        "studies": StudiesResource(folder=str(studies)),
        "lake": LakeResource(root=str(platform.lake.root)),
    }
    study_files(context, **resources)
    assert all(fits_in(platform, table) == set() for table in GOLD)
    assert fits_in(platform, "labels") == both
