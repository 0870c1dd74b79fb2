"""How many LLM calls judging the steered texts of a fit takes, by prompt, before any is made.

At most: every text is one that was calibrated, is not empty and differs from the others. Usually:
the share below, measured (assets/shared/call_count.py). What is asked is judging.py.
"""

from __future__ import annotations

from assets.shared.call_count import CallCount
from assets.steering.config import SteeringConfig
from assets.steering.prompts import CONCEPT_PROMPT, FLUENCY_PROMPT, JudgePrompt

TEXTS_TO_JUDGE = 0.9


def judge_call_counts(n_features: int, config: SteeringConfig) -> dict[str, CallCount[JudgePrompt]]:
    """Prompt name → how often it is asked, for `n_features` steered and labelled.

    Unsteered base texts are the same for every feature: each is rated for every concept, and once
    for fluency.
    """
    n_steered = n_features * len(config.signs) * len(config.target_kl_nats) * config.n_texts
    n_base = config.n_texts if n_features else 0
    most = {CONCEPT_PROMPT: n_steered + n_features * n_base, FLUENCY_PROMPT: n_steered + n_base}
    return {prompt.name: CallCount(prompt, n, TEXTS_TO_JUDGE * n) for prompt, n in most.items()}
