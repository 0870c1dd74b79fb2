"""What a rerun costs against a whole run: nothing changed, a document more, killed on the way.

The first two on the demo with its embedded LLM. The kills are on the quick study
(tests/mini_study.py) with a fake endpoint of the test's own, which answers at once and sees every
call; those of the demo are in test_killed_demo.py.
Each study is materialized by processes of its own, in an empty lake. Printed are ratios to the
whole run of the same session.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from counting_llm import counting_llm, environment_of
from killed_runs import (
    CALLS_AT_ONCE,
    assert_as_never_killed,
    kill_points,
    n_repeated,
    run_killed,
    run_whole,
)
from lake_contents import DATA_TABLES, HISTORY, contents, differing_columns, total
from mini_study import write_quick_study
from only_fits import make_only_fits
from platform_of_test import Platform
from separate_process import PROJECT, Finished, SeparateProcess

from assets.corpus.sources import BUNDLED_FOLDER

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(4 * 3600)]
Report = Callable[[str], None]
N_DOCUMENTS = 500
N_LAKES, N_KILLS_EACH = 5, 4


def documents() -> list[str]:
    """Lines of the bundled corpus, which mixes its concepts."""
    return (BUNDLED_FOLDER / "concepts.jsonl").read_text().splitlines(keepends=True)


def write_demo(place: SeparateProcess, corpus: list[str] | None, **changes: Any) -> None:
    """The demo study, over these lines instead of its own corpus where some are given."""
    study = yaml.safe_load((PROJECT / "studies" / "demo.yaml").read_text()) | changes
    if corpus is not None:
        (place.studies / "documents.jsonl").write_text("".join(corpus))
        study["corpus"] = {"path": "documents.jsonl"}
    (place.studies / "demo.yaml").write_text(yaml.safe_dump(study))


def costs(run: Finished) -> tuple[int, int]:
    """Forward tokens and LLM calls made."""
    return total(run.ledger, "forward_tokens"), total(run.ledger, "llm_calls_made")


def in_words(run: Finished, whole: Finished) -> str:
    tokens, calls = costs(run)
    all_tokens, all_calls = costs(whole)
    return (
        f"{tokens} of {all_tokens} forward tokens ({tokens / all_tokens:.2%}), "
        f"{calls} of {all_calls} LLM calls ({calls / all_calls:.1%}), "
        f"{run.seconds:.0f} of {whole.seconds:.0f} s ({run.seconds / whole.seconds:.1%})"
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> SeparateProcess:
    place = SeparateProcess(tmp_path_factory.mktemp("demo"), cache_folder)
    write_demo(place, documents()[:N_DOCUMENTS])
    return place


@pytest.fixture(scope="module")
def whole(demo: SeparateProcess) -> Finished:
    """The demo over 500 documents, from nothing."""
    return demo.run("demo")


def test_nothing_changed(demo: SeparateProcess, whole: Finished, report: Report) -> None:
    again = demo.run("demo")
    report(f"nothing changed: {in_words(again, whole)}")
    assert set(again.ledger["decision"]) == {"reused"}
    assert costs(again) == (0, 0)
    assert again.seconds <= 0.05 * whole.seconds


def test_one_document_in_500_added(
    demo: SeparateProcess,
    whole: Finished,
    report: Report,
    tmp_path: Path,
    cache_folder: Path,
) -> None:
    corpus = documents()[: N_DOCUMENTS + 1]
    write_demo(demo, corpus)
    added = demo.run("demo")
    report(f"one document more: {in_words(added, whole)}")
    tokens, calls = costs(added)
    assert tokens <= 0.01 * costs(whole)[0]
    assert calls <= 0.1 * costs(whole)[1]
    with demo.lake() as lake:
        grown = contents(lake)

    for name, from_fits in (("a run from nothing", False), ("a run from the fit of 500", True)):
        place = SeparateProcess(tmp_path / name, cache_folder)
        if from_fits:
            write_demo(place, documents()[:N_DOCUMENTS])
            with dg.DagsterInstance.ephemeral(str(tmp_path)) as instance:
                platform = Platform(place.root, instance, cache_folder)
                make_only_fits(platform)
                platform.lake.close()
        # Equal questions have equal answers; asking them again would show nothing.
        saved = Path("llm_cache")
        shutil.copytree(demo.lake_root / saved, place.lake_root / saved, dirs_exist_ok=True)
        write_demo(place, corpus)
        place.run("demo")
        with place.lake() as lake:
            differing = differing_columns(grown, contents(lake))
        n_equal = len(DATA_TABLES) - len(differing)
        report(f"against {name}: {n_equal} of {len(DATA_TABLES)} tables equal; others:")
        for table, columns in differing.items():
            report(f"    {table}: {', '.join(columns)}")
        # A fit of all documents at once is another dictionary, so all that follows differs.
        if from_fits:
            assert set(differing) <= HISTORY, differing


def test_killed_at_random_points(report: Report, tmp_path: Path, cache_folder: Path) -> None:
    rng = random.Random(0)
    with counting_llm() as llm:
        environment = environment_of(llm)
        never = SeparateProcess(tmp_path / "never", cache_folder, environment)
        write_quick_study(never.studies)
        whole = run_whole(never, "mini", llm)
        n_calls = len(llm.requests)
        n_kills = n_twice = 0
        for number in range(N_LAKES):
            n_before = len(llm.requests)
            place = SeparateProcess(tmp_path / f"killed_{number}", cache_folder, environment)
            write_quick_study(place.studies)
            kills = run_killed(place, "mini", llm, whole, kill_points(N_KILLS_EACH, rng), rng)
            assert_as_never_killed(place, whole, llm, kills)
            assert n_repeated(llm, n_before) <= CALLS_AT_ONCE * len(kills)
            n_kills += len(kills)
            n_twice += n_repeated(llm, n_before)
            report(
                f"lake {number}: killed at {', '.join(f'{kill.share:.0%}' for kill in kills)}; "
                f"{len(whole.contents)} tables as if never killed"
            )
    report(
        f"{n_kills} kills of the quick study with a fake endpoint (not the demo), in {N_LAKES} "
        f"lakes: no kept answer asked for again; {n_twice} of "
        f"{N_LAKES * n_calls} calls were under way at a kill and were made twice"
    )
    assert n_kills == N_LAKES * N_KILLS_EACH
