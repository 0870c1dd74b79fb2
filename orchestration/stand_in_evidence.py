"""Evidence that is not there yet, stood in for by texts of its likely length, for an estimate.

Each prompt's fields are filled as the labels, detection and steering rooms would: contexts are
lines of documents, cut as contexts are; marked and promoted words are words of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from assets.corpus.bundled_corpus import read_bundled_rows
from assets.corpus.tables import DOCUMENTS
from assets.labels.prompts import CONTRAST_HEAD
from assets.labels.score_prompts import SPARE_FOILS
from resources.lake import Lake
from resources.study import Study

MOST_DOCUMENTS = 200
WORDS_PER_TOKEN = 0.75
CHARACTERS_PER_TOKEN = 3.7
WORD_OR_SIGNS = re.compile(r"\w+|[^\w\s]+")


def documents_of(study: Study, lake: Lake) -> list[str]:
    """Texts of the study's documents in the lake, evenly drawn; where there are none, the bundled
    corpus's.
    """
    texts: list[str] = []
    if DOCUMENTS.name in lake.table_names():
        where = {"study": study.name, "status": "ok"}
        texts = lake.read(DOCUMENTS, where, columns=("text",))["text"].to_list()
    texts = texts or [row.text for row in read_bundled_rows()]
    step = -(-len(texts) // MOST_DOCUMENTS)
    return texts[::step]


def stand_in_values(study: Study, documents: Sequence[str]) -> dict[str, str]:
    """Field of a prompt → a text of its likely length."""
    labels, evidence = study.labels, study.evidence
    n_words = _words_of_window(study)
    n_shown = min(labels.n_contexts_shown, evidence.n_top + evidence.n_sampled)
    n_near = min(labels.n_near_misses_shown, evidence.n_near_miss)
    lines = [_line(documents, number, n_words) for number in range(n_shown + n_near)]
    words = [_middle_word(line) for line in lines]
    vocabulary = [_middle_word(_line(documents, number, n_words)) for number in range(100)]
    n_vocabulary = min(labels.n_vocab_shown, evidence.n_vocab)
    shown = [
        f"- {line.replace(word, f'«{word}»', 1)}"
        for line, word in zip(lines[:n_shown], words, strict=False)
    ]
    near = [f"- {line}" for line in lines[n_shown:]]
    return {
        "contexts": "\n".join(shown),
        "contrast": CONTRAST_HEAD + "\n".join(near) if near else "",
        "words": ", ".join(dict.fromkeys(words[:n_shown])),
        "promoted": ", ".join(vocabulary[:n_vocabulary]),
        "text": sorted(lines, key=len)[len(lines) // 2],
        "label": sorted(SPARE_FOILS, key=len)[len(SPARE_FOILS) // 2],
    }


def words_per_context(study: Study, documents: Sequence[str]) -> float:
    """How many words and signs a context has, on average: simulation asks about each."""
    n_words = _words_of_window(study)
    lines = [" ".join(text.split()[:n_words]) for text in documents]
    return sum(len(WORD_OR_SIGNS.findall(line)) for line in lines) / max(len(lines), 1)


def stand_in_passage(study: Study, documents: Sequence[str]) -> str:
    """A steered text with its prompt, as long as texts get."""
    n_characters = int(study.steering.max_new_tokens * CHARACTERS_PER_TOKEN)
    prompts = sorted(study.steering.neutral_prompts, key=len)
    prompt = prompts[len(prompts) // 2]
    return f"{prompt} {' '.join(documents)[:n_characters]}"


def _words_of_window(study: Study) -> int:
    n_tokens = 2 * study.evidence.window + 1
    return min(study.labels.max_context_words, int(WORDS_PER_TOKEN * n_tokens))


def _line(documents: Sequence[str], number: int, n_words: int) -> str:
    # Far from each other, so that no one concept or source fills the evidence.
    return " ".join(documents[number * 37 % len(documents)].split()[:n_words])


def _middle_word(line: str) -> str:
    words = line.split() or ["word"]
    return words[len(words) // 2].strip(".,;:!?\"'") or "word"
