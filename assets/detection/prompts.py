"""What the LLM is asked in detection: one sentence that is about a label.

One sentence a call, not a list: a small LLM writes lists of one sentence over and over, and a call
that fails costs one sentence. The examples' themes are not concepts of the bundled corpus.
"""

from __future__ import annotations

from assets.labels.prompt import Prompt

ACTIVATING_SENTENCE = Prompt(
    name="activating_sentence",
    system="You write one short, natural sentence about a topic.",
    template="Write a sentence about: {label}",
    examples=(
        ({"label": "weather"}, "Heavy snow closed the mountain road last night."),
        ({"label": "music"}, "He practises the guitar every evening after work."),
        ({"label": "furniture"}, "She sat down on the old sofa by the window."),
    ),
    max_tokens=40,
)
