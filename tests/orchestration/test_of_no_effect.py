"""What a stage finds to be of no effect ends there: what reads its tables is left alone."""

import pytest
from answering_endpoint import AnsweringEndpoint
from nightly_study import CALLS, contents, night, write_nightly_study
from platform_of_test import Platform

from assets import recipe

pytestmark = pytest.mark.slow


def test_a_fit_that_is_kept_has_the_versions_that_it_was_written_with(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nightly_study(platform.root / "studies")
    with AnsweringEndpoint() as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
        night(platform)
        assert len(endpoint.take_requests()) == CALLS
        before = contents(platform)

        # The recipe's fingerprint is another one, the fit's own is as before.
        plain = recipe.code_version
        monkeypatch.setattr(
            recipe,
            "code_version",
            lambda stage, modules=None: (
                "changed" if stage == "factorization" else plain(stage, modules)
            ),
        )
        rows = night(platform)
        assert endpoint.take_requests() == []
    kept = rows.filter(asset="factorization")
    code = plain("factorization")
    assert kept["reason"].to_list() == [f"code {code} → changed: of no effect here"]
    assert set(rows["decision"]) == {"reused"}
    assert contents(platform) == before
