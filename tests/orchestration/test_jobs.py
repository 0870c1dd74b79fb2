"""The order and the dependence of a study's runs, and partitions that follow the studies."""

from pathlib import Path

import dagster as dg
from mini_study import write_study

from orchestration.partition_sync import sync_partitions
from orchestration.study_run import partitions_of
from resources.study_files import StudiesResource

MODELS = [{"source": "smollm2-135m-instruct", "layers": [5, 15]}]


def test_every_run_comes_after_what_it_reads(tmp_path: Path) -> None:
    write_study(tmp_path, models=MODELS)
    runs = list(partitions_of(StudiesResource(folder=str(tmp_path)).study("mini")))
    of_site = ["features_job"] * 4 + ["comparison_job"]
    assert [run.job for run in runs] == ["corpus_job", *["activations_job"] * 2, *of_site * 2]
    for place, run in enumerate(runs):
        assert not any(run.reads(later) for later in runs[place:])
    corpus, first, second, *after = runs
    assert all(run.reads(corpus) for run in runs[1:])
    assert [run.reads(first) for run in after] == [True] * 5 + [False] * 5
    assert [run.reads(second) for run in after] == [False] * 5 + [True] * 5
    # A fit that failed does not keep the others from being compared.
    assert not after[4].reads(after[0])


def test_fits_run_at_their_kinds_and_a_transcoder_waits_for_its_input(tmp_path: Path) -> None:
    kinds = ["mlp_out", "mlp_in", "mlp_hidden"]
    write_study(
        tmp_path,
        models=[{"source": "smollm2-135m-instruct", "layers": [5, 15], "kinds": kinds}],
        fits=[
            {"method": "snmf", "rank": 4},
            {"method": "transcoder", "rank": 4},
            {"method": "pca", "rank": 4, "kinds": ["mlp_in", "mlp_hidden"]},
        ],
    )
    runs = list(partitions_of(StudiesResource(folder=str(tmp_path)).study("mini")))
    for place, run in enumerate(runs):
        assert not any(run.reads(later) for later in runs[place:])
    made = {tuple(run.partition_key.split("|")) for run in runs if run.job == "features_job"}
    site = "mini:smollm2-135m-instruct@L{}.{}".format
    assert made == {
        (fit, site(layer, kind))
        for layer in (5, 15)
        for fit, kind in (
            ("snmf-k004", "mlp_out"),
            ("snmf-k004", "mlp_hidden"),
            ("transcoder-k004", "mlp_out"),
            ("pca-k004", "mlp_in"),
            ("pca-k004", "mlp_hidden"),
        )
    }
    reads = {
        run.partition_key: {
            other.partition_key
            for other in runs
            if other.job == "activations_job" and run.reads(other)
        }
        for run in runs
        if run.job == "features_job"
    }
    out, entered = site(15, "mlp_out"), site(15, "mlp_in")
    assert reads[f"transcoder-k004|{out}"] == {out, entered}
    assert reads[f"snmf-k004|{out}"] == {out}


def test_partitions_follow_the_study_files(tmp_path: Path) -> None:
    studies = StudiesResource(folder=str(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        write_study(tmp_path, models=MODELS)
        sync_partitions(instance, studies.readable()[0])
        assert instance.get_dynamic_partitions("site") == [
            "mini:smollm2-135m-instruct@L5.mlp_hidden",
            "mini:smollm2-135m-instruct@L15.mlp_hidden",
        ]
        assert instance.get_dynamic_partitions("fit") == [
            "snmf-k012",
            "diff_means",
            "random-k006",
            "permuted-k006",
        ]
        assert sync_partitions(instance, studies.readable()[0]) == {}

        write_study(tmp_path, models=[{"source": "smollm2-135m-instruct", "layers": [15, 25]}])
        changes = sync_partitions(instance, studies.readable()[0])
        assert changes == {
            "site": (
                ["mini:smollm2-135m-instruct@L25.mlp_hidden"],
                ["mini:smollm2-135m-instruct@L5.mlp_hidden"],
            )
        }
        assert instance.get_dynamic_partitions("study") == ["mini"]
