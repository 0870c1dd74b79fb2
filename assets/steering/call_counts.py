"""How many LLM calls judging the steered texts of a fit takes, by prompt, before any is made.

At most: every text is one that was calibrated, is not empty and differs from the others. Usually:
the share below, measured (assets/shared/call_count.py). What is asked is judging.py.
"""

from __future__ import annotations

from assets.shared.call_count import ALL_DIFFERENT, CallCount, UsualLabels
from assets.steering.config import SteeringConfig
from assets.steering.judge_prompt import JudgePrompt
from assets.steering.judged_labels import kinds_by_sign
from assets.steering.prompts import CONCEPT_PROMPT, FLUENCY_PROMPT
from assets.steering.tables import BASE_SIGN

TEXTS_TO_JUDGE = 0.98


def judge_call_counts(
    n_features: int, config: SteeringConfig, *, labels: UsualLabels = ALL_DIFFERENT
) -> dict[str, CallCount[JudgePrompt]]:
    """Prompt name → how often it is asked, for `n_features` steered and labelled.

    A text is rated for each label that it is judged on, and once for fluency. Unsteered base texts
    are the same for every feature and fit: each is rated for every concept, and once for fluency.
    `labels` says what is usual of the features' labels.
    """
    kinds = kinds_by_sign(config.judged_labels, config.signs)
    n_of_sign = n_features * len(config.target_kl_nats) * config.n_texts
    n_base = config.n_texts if n_features else 0
    n_concepts = sum(n_of_sign * len(kinds[sign]) for sign in config.signs)
    n_base_concepts = n_features * n_base * len(kinds[BASE_SIGN])
    most = {
        CONCEPT_PROMPT: n_concepts + n_base_concepts,
        FLUENCY_PROMPT: n_of_sign * len(config.signs) + n_base,
    }
    share = {CONCEPT_PROMPT: labels.given * TEXTS_TO_JUDGE, FLUENCY_PROMPT: TEXTS_TO_JUDGE}
    as_others = {CONCEPT_PROMPT: labels.as_other_fits * n_base_concepts, FLUENCY_PROMPT: n_base}
    return {
        prompt.name: CallCount(prompt, n, share[prompt] * n, share[prompt] * as_others[prompt])
        for prompt, n in most.items()
    }
