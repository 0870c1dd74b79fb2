"""The embedded judge answers with ratings, by far more than is asked of a judge."""

from __future__ import annotations

import pytest

from assets.labels.config import LlmConfig
from assets.steering.judging import MIN_RATING_MASS, read_rating
from assets.steering.prompts import CONCEPT_PROMPT, FLUENCY_PROMPT
from resources.chat_model import ChatModel

ASKED = (
    ("weekdays", "I think that it is Monday, and on Tuesday we shall go to the market."),
    ("music", "He said that the the the band the the of song of song"),
    ("Answer: 7", "Question: what is 3 + 4? The"),
    ("punctuation", "... ... ! ! ! ? ? ?"),
)


@pytest.mark.slow
def test_the_embedded_judge_puts_most_of_its_probability_on_the_ratings() -> None:
    requests = [
        prompt.request(label, text, "graded")
        for label, text in ASKED
        for prompt in (CONCEPT_PROMPT, FLUENCY_PROMPT)
    ]
    replies = ChatModel(LlmConfig(embedded_context=1024)).complete(requests, purpose="test")
    ratings = [read_rating(reply, "graded") for reply in replies]
    assert all(rating.value is not None and 0 < rating.value < 2 for rating in ratings)
    assert min(rating.answer_mass or 0.0 for rating in ratings) > MIN_RATING_MASS + 0.1
