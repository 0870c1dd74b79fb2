"""How many LLM calls the probe sentences of a fit take, by prompt, before any is made.

At most: every labelled feature, and no two with the same label. Usually: as the LLM's labels differ
(assets/shared/call_count.py). Fewer are made where the cache knows an answer. What is asked is
probe_sentences.py.
"""

from __future__ import annotations

from assets.detection.config import DetectionConfig
from assets.detection.prompts import ACTIVATING_SENTENCE
from assets.labels.prompt import Prompt
from assets.shared.call_count import ALL_DIFFERENT, CallCount, UsualLabels


def probe_call_counts(
    n_features: int, config: DetectionConfig, *, labels: UsualLabels = ALL_DIFFERENT
) -> dict[str, CallCount[Prompt]]:
    """Prompt name → how often it is asked, for `n_features` probed features.

    `labels` says what is usual of their labels.
    """
    prompt, most = ACTIVATING_SENTENCE, n_features * config.n_activating
    usual = labels.distinct * most
    return {prompt.name: CallCount(prompt, most, usual, labels.as_other_fits * usual)}
