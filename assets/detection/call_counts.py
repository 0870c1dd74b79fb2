"""How many LLM calls the probe sentences of a fit take, by prompt, before any is made.

At most: every labelled feature, and no two with the same label. Usually: the share below, measured
(assets/shared/call_count.py). Fewer are made where the cache knows an answer. What is asked is
probe_sentences.py.
"""

from __future__ import annotations

from assets.detection.config import DetectionConfig
from assets.detection.prompts import ACTIVATING_SENTENCE
from assets.labels.prompt import Prompt
from assets.shared.call_count import CallCount

DISTINCT_LABELS = 0.85


def probe_call_counts(n_features: int, config: DetectionConfig) -> dict[str, CallCount[Prompt]]:
    """Prompt name → how often it is asked, for `n_features` probed features."""
    prompt, most = ACTIVATING_SENTENCE, n_features * config.n_activating
    return {prompt.name: CallCount(prompt, most, DISTINCT_LABELS * most)}
