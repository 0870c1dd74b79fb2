"""SIGKILL of the whole process group on the way: a rerun ends as if nothing had happened."""

import random
from pathlib import Path

import pytest
from counting_llm import counting_llm, environment_of
from killed_runs import (
    CALLS_AT_ONCE,
    assert_as_never_killed,
    kill_points,
    n_repeated,
    run_killed,
    run_whole,
)
from mini_study import QUICK_STUDY, write_quick_study
from separate_process import SeparateProcess

pytestmark = pytest.mark.slow
SEED = 4
FITS = QUICK_STUDY["fits"][:1]


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, cache_folder: Path) -> None:
    rng = random.Random(SEED)
    with counting_llm() as llm:
        environment = environment_of(llm)
        never = SeparateProcess(tmp_path / "never_killed", cache_folder, environment)
        write_quick_study(never.studies, fits=FITS)
        whole = run_whole(never, "mini", llm)
        n_asked = len(llm.requests)
        assert n_asked > 0 and n_repeated(llm, 0) == 0

        killed = SeparateProcess(tmp_path / "killed", cache_folder, environment)
        write_quick_study(killed.studies, fits=FITS)
        kills = run_killed(killed, "mini", llm, whole, kill_points(3, rng), rng)
        assert len(kills) == 3
        assert_as_never_killed(killed, whole, llm, kills)
        assert n_repeated(llm, n_asked) <= CALLS_AT_ONCE * len(kills)
        assert len(llm.requests) - n_asked == n_asked + n_repeated(llm, n_asked)

        again = killed.run("mini")
    assert set(again.ledger["decision"]) == {"reused"}
