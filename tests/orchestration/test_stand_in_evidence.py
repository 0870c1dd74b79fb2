"""Texts that stand in for evidence have its likely length."""

from __future__ import annotations

from mini_study import MINI_STUDY

from orchestration.stand_in_evidence import words_per_context
from resources.study import Study


def test_words_and_signs_of_documents_are_counted_up_to_the_length_of_a_context() -> None:
    study = Study.model_validate(MINI_STUDY | {"labels": {"max_context_words": 6}})
    assert words_per_context(study, ["One, two.", "One two three"]) == (4 + 3) / 2
    assert words_per_context(study, ["word " * 50]) == 6
    assert words_per_context(study, []) == 0
