"""How many LLM calls the labels of a fit take, by prompt, before any is made.

At most: every feature with evidence and a label of each kind, every candidate another, and as many
contexts as are kept. Usually: the shares below, measured (assets/shared/call_count.py). Fewer are
made where the cache knows an answer. What is asked is label_tasks.py and score_questions.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from assets.evidence.config import EvidenceConfig
from assets.labels.config import LabelsConfig, LlmConfig
from assets.labels.prompt import Prompt
from assets.labels.prompts import LABEL_PROMPTS
from assets.labels.score_prompts import RATE_WORD
from assets.labels.score_questions import TOPIC_PROMPTS, YES_NO_PROMPTS
from assets.shared.call_count import ALL_DIFFERENT, CallCount, UsualLabels

# Of the candidates for a label, those that differ; of the features with a label, those with
# documents in which a similar feature fires alone; of the most words of a context, those of the
# bundled corpus's.
DISTINCT_CANDIDATES = 0.57
WITH_HARD_NEGATIVES = 0.75
WORDS_OF_MOST = 0.65


def label_call_counts(
    n_features: int,
    config: LabelsConfig,
    evidence: EvidenceConfig,
    llm: LlmConfig,
    judge: LlmConfig,
    *,
    words_per_context: float | None = None,
    labels: UsualLabels = ALL_DIFFERENT,
) -> dict[str, CallCount[Prompt]]:
    """Prompt name → how often `llm` is asked to write, and `judge` to score, of `n_features`.

    Where candidates are reranked, a label is also asked for without evidence, at most once a
    candidate. `words_per_context` is how many words and signs a context usually has (a simulated
    one takes a call for each); None: as in the bundled corpus. `labels` says what is usual of
    those that `llm` gives.
    """
    most: Counter[str] = Counter()
    usual: dict[str, float] = defaultdict(float)
    as_others: dict[str, float] = defaultdict(float)
    prompts: dict[str, Prompt] = {}

    def add(prompt: Prompt, n: int, n_usual: float, n_of_label: float = 0.0) -> None:
        """`n_of_label` of the usual calls hold a label and nothing else that is the feature's."""
        prompts[prompt.name] = prompt
        most[prompt.name] += n
        usual[prompt.name] += n_usual
        as_others[prompt.name] += labels.as_other_fits * n_of_label

    prompt_style = config.style_for(llm)
    for kind in config.kinds:
        n_candidates = config.candidates if config.is_reranked_for(llm) else 1
        n_priors = n_candidates if n_candidates > 1 else 0
        add(
            LABEL_PROMPTS[kind, prompt_style],
            n_features * (n_candidates + n_priors),
            n_features * (n_candidates + DISTINCT_CANDIDATES * n_priors),
            n_features * DISTINCT_CANDIDATES * n_priors,
        )
    n_scored = n_features * len(set(config.score_kinds) & set(config.kinds))
    n_shuffled = min(config.n_shuffled, n_features // 2) * n_scored // max(n_features, 1)
    n_kept = {
        "positive": min(config.n_held_out, evidence.n_held_out),
        "random": min(config.n_held_out, evidence.n_negative),
        "hard": min(config.n_held_out, evidence.n_hard_negative),
    }
    style = config.judge_style_for(judge)
    n_words = WORDS_OF_MOST * config.max_context_words
    if words_per_context is not None:
        n_words = min(words_per_context, config.max_context_words)
    for method in config.score_methods_for(judge):
        if method == "simulation":
            n_contexts = (n_scored + n_shuffled) * (n_kept["positive"] + n_kept["random"])
            add(
                TOPIC_PROMPTS[method] if style == "likelihood" else RATE_WORD,
                n_contexts * config.max_context_words,
                labels.given * n_contexts * n_words,
            )
            continue
        prompt = (YES_NO_PROMPTS if style == "yes_no" else TOPIC_PROMPTS)[method]
        for sample in ("positive", *config.score_negatives):
            # Fuzzing's random negatives are the held-out contexts again, otherwise marked.
            is_marked_anew = (method, sample) == ("fuzzing", "random")
            n_questions = (n_scored + n_shuffled) * n_kept["positive" if is_marked_anew else sample]
            n_questions *= config.n_foils if style == "choice" else 1
            share = labels.given * (WITH_HARD_NEGATIVES if sample == "hard" else 1)
            add(prompt, n_questions, share * n_questions)
        if style == "likelihood":
            # Each label once without a context; a shuffled one is another feature's.
            add(prompt, n_scored, labels.given * n_scored, labels.given * n_scored)
    return {
        name: CallCount(prompts[name], n, usual[name], as_others[name]) for name, n in most.items()
    }
