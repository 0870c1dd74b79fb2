"""Neutral sentences, bundled: everyday statements that are about nothing in particular.

A feature's activating sentences are compared with a draw of these. They avoid what corpora of
concepts are made of (days, colours, languages, code, numbers, strong feelings, animals, food,
places, sport, science, law), so that a feature of such a concept has no reason to fire. The draw
depends only on the seed and the feature, so it can be repeated.
"""

from __future__ import annotations

import numpy as np

NEUTRAL_SENTENCES: tuple[str, ...] = (
    "The door at the end of the hall was left open.",
    "She put the box down and looked around the room.",
    "It is not clear what they will decide to do next.",
    "There is usually somebody at the desk who can help.",
    "He said that he would be back in a little while.",
    "Most of the chairs had already been taken.",
    "They waited outside until everyone had arrived.",
    "The other one is a bit larger and easier to carry.",
    "We talked about it for some time and then went on.",
    "Nothing in the letter came as a great surprise.",
    "The path leads past the old building and up the hill.",
    "Someone has moved the things that were on the shelf.",
    "I think that it would be better to ask first.",
    "The people at the next table were talking quietly.",
    "What happened after that is described in the next part.",
    "She found the key under a pile of papers.",
    "He usually takes the same way home.",
    "The meeting lasted longer than anyone had expected.",
    "You can leave your coat on the hook by the window.",
    "It took them a while to find the right address.",
    "The lid fits better if you turn it the other way.",
    "They had known each other since they were at school.",
    "A small group stood near the entrance and waited.",
    "The plan was changed slightly before it was carried out.",
    "He folded the sheet and put it back into the drawer.",
    "There was a short pause before she gave her answer.",
    "The rest of the work can be done at another time.",
    "Both of them had heard the story before.",
)


def draw_neutral_sentences(n: int, *, seed: int, feature_id: int) -> list[str]:
    """`n` different sentences of the list, drawn for a feature; ValueError where it has fewer."""
    if n > len(NEUTRAL_SENTENCES):
        raise ValueError(
            f"{n} neutral sentences were asked for; the bundled list has {len(NEUTRAL_SENTENCES)}"
        )
    generator = np.random.default_rng([seed, feature_id])
    return [NEUTRAL_SENTENCES[i] for i in generator.permutation(len(NEUTRAL_SENTENCES))[:n]]
