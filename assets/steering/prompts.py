"""The judge's prompts: does a text show a concept, and is it fluent; ratings 0, 1 or 2.

Short and few-shot, so that a 135M judge can follow them; each shot is a turn of its own, so that
the answer is a single digit. Rating texts 0–2 on concept and fluency follows
AxBench (Wu et al., arXiv 2501.17148, sec. 3.3). How replies become scores is in judging.py.
"""

from __future__ import annotations

from assets.steering.judge_prompt import Judge, JudgePrompt

# Chosen among five forms by SmolLM2-135M's graded ratings of 16 texts that show their concept
# against the same texts asked about another one (AUROC 0.71, 14 of 16 pairs in order; 0.57 for a
# form that defined the ratings at length) and of 12 fluent against 6 broken texts (AUROC 0.85).
CONCEPT_PROMPT = JudgePrompt(
    name="steering_concept",
    instruction="Is the text about the concept? 0 = no, 1 = partly, 2 = yes.",
    question="Text: {text}\nIs it about {label}? (0 = no, 1 = partly, 2 = yes)",
    shots=(
        ("cooking", "I think that the soup needs more salt.", 2),
        ("football", "I think that the soup needs more salt.", 0),
        ("rain", "She said the sky was dark.", 1),
        ("football", "The team scored two goals.", 2),
        ("cooking", "The team scored two goals.", 0),
        ("health", "He stayed in bed.", 1),
    ),
)

FLUENCY_PROMPT = JudgePrompt(
    name="steering_fluency",
    instruction="Rate from 0 to 2 how well the text is written.",
    question="Text: {text}\nRating:",
    shots=(
        ("", "I think that the soup needs more salt and an hour on the stove.", 2),
        ("", "She said the the the the the the the the the the the", 0),
        ("", "The thing is that he go to the market and buys there many thing for eat.", 1),
        ("", "It is said that the old bridge was built by two brothers who never", 2),
        ("", "We were told that ishop ishop shi of of zz ,, which which means", 0),
        ("", "I think that people is happy when is the sun and is the sun is good.", 1),
    ),
)


def judge_versions(judge: Judge) -> dict[str, str]:
    """Name and version of both prompts, for a form of answer."""
    return {prompt.name: prompt.version(judge) for prompt in (CONCEPT_PROMPT, FLUENCY_PROMPT)}
