"""What failed in one night and may pass is tried again in the next, three times and no more."""

import pytest
from answering_endpoint import AnsweringEndpoint
from nightly_study import ASSETS, CALLS, contents, night, write_nightly_study
from platform_of_test import Platform

pytestmark = pytest.mark.slow
SECOND_JUDGE = "Rate from 0 to 2 how well"


@pytest.fixture(autouse=True)
def study(platform: Platform) -> None:
    write_nightly_study(platform.root / "studies")


def n_failed_scores(platform: Platform) -> int:
    return platform.lake.query(
        "SELECT count(*) FROM steering_scores WHERE status IN ('failed', 'partial')"
    ).item()


def test_a_healthy_night_mends_what_failed_and_sends_nothing_twice(
    platform: Platform, endpoint: AnsweringEndpoint
) -> None:
    endpoint.fails = lambda prompt: SECOND_JUDGE in prompt
    first = night(platform)
    failed = [prompt for prompt in endpoint.take_requests() if SECOND_JUDGE in prompt]
    assert len(failed) == 3
    steering = first.filter(asset="steering")
    assert steering["llm_calls_failed"].to_list() == [3]
    assert steering["rows_to_retry"][0] == n_failed_scores(platform) > 0

    endpoint.fails = lambda prompt: False
    second = night(platform)
    assert sorted(endpoint.take_requests()) == sorted(failed)
    made = second.filter(decision="computed")
    assert made["asset"].to_list() == [
        "steering",
        "steering_summaries",
        "catalogue",
        "comparison",
    ]
    assert made["reason"][0].startswith(f"{steering['rows_to_retry'][0]} rows failed")
    assert made["reason"][0].endswith("attempt 2")
    assert all("changed" in reason for reason in made["reason"][1:])
    assert made["forward_tokens"][0] == 0  # strengths and texts stay
    assert n_failed_scores(platform) == 0
    assert set(night(platform)["decision"]) == {"reused"}


def test_what_fails_three_times_is_left(platform: Platform, endpoint: AnsweringEndpoint) -> None:
    endpoint.fails = lambda prompt: SECOND_JUDGE in prompt
    night(platform)
    assert len(endpoint.take_requests()) == CALLS
    after = contents(platform)
    for attempt in (2, 3):
        rows = night(platform)
        # The same content again, so what reads it is left alone.
        assert rows.filter(decision="computed")["asset"].to_list() == ["steering"]
        assert rows.filter(asset="steering")["attempt"].to_list() == [attempt]
        assert len(endpoint.take_requests()) == 3
        assert contents(platform) == after
    assert night(platform)["decision"].to_list() == ["reused"] * ASSETS
    assert endpoint.take_requests() == []
    assert n_failed_scores(platform) > 0

    # Told to, a run takes it up again; what failed after a long outage is not lost.
    endpoint.fails = lambda prompt: False
    assert platform.materialize(retry=True).success
    assert len(endpoint.take_requests()) == 3
    assert n_failed_scores(platform) == 0
    assert night(platform)["decision"].to_list() == ["reused"] * ASSETS


def test_while_fewer_rows_fail_each_time_they_are_tried_on(
    platform: Platform, endpoint: AnsweringEndpoint
) -> None:
    """An endpoint that mends one call a night is asked until all are mended."""
    endpoint.fails = lambda prompt: SECOND_JUDGE in prompt
    night(platform)
    waiting = sorted({one for one in endpoint.take_requests() if SECOND_JUDGE in one})
    assert len(waiting) == 3
    for n_mended in (0, 1, 2, 3):
        endpoint.fails = lambda prompt, n=n_mended: prompt in waiting[n:]
        rows = night(platform)
        attempt = rows.filter(asset="steering", decision="computed")["attempt"].to_list()
        assert attempt == [2 if n_mended in (0, 3) else 1], n_mended
        endpoint.take_requests()
    assert n_failed_scores(platform) == 0
