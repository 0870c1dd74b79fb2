"""Refusals in prose are known by how they begin; what only sounds alike is not taken for one."""

from __future__ import annotations

import pytest

from assets.shared.refusals import is_refusal


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, I can't help with that",
        "I’m sorry, but I cannot assist with that request.",
        "I am very sorry, but I am unable to provide such content",
        "Sorry, I can't write that sentence.",
        "I apologize, but I can't generate content about this.",
        "I apologize for any confusion, but I can't provide that",
        "I cannot help with that.",
        "I won't help with that",
        "I can't assist\nwith that",
        "I'm unable to provide a label",
        "As an AI language model…",
        "As an AI language model, I cannot write this.",
        "As an AI, I do not have opinions",
        ' "As a large language model I can not"',
    ],
)
def test_refusals(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "apologies and sorry",
        "I'm sorry",
        "I'm sorry I missed your call last night.",
        "I'm sorry, I can't come to the party.",
        "Sorry seems to be the hardest word.",
        "I can't help but smile when it rains.",
        "I cannot help him today.",
        "We cannot provide for everyone.",
        "I can't write as fast as she can.",
        "Unfortunately, I could not attend the meeting.",
        "As an aid to memory, he wrote it down.",
        "As an AI researcher, she studied language.",
        "AI language models",
        "We cannot provide any more money, the mayor said.",
        "Sorry, but we cannot write this off.",
        "Unfortunately, I couldn't complete that race.",
        "He said: I'm sorry, I can't help with that.",
    ],
)
def test_sentences_and_labels_that_are_none(text: str) -> None:
    assert not is_refusal(text)
