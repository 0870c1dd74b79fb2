"""SmolLM2 on a CPU: a document's rows are the same bytes however they were captured."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from assets.activations.capture import CaptureSettings, capture_shards
from assets.activations.sites import ActivationSite
from assets.activations.tokenization import TokenizedDocument, tokenize_documents
from assets.corpus.bundled_corpus import read_bundled_rows
from resources.subject_model import load_subject_model

SITES = [ActivationSite(3), ActivationSite(6, "resid_post")]


@pytest.mark.slow
def test_edited_night_after_night_or_from_scratch_gives_the_same_files(
    cache_folder: Path, tmp_path: Path
) -> None:
    subject = load_subject_model("smollm2-135m-instruct", cache_folder=cache_folder / "models")
    texts = [row.text for row in read_bundled_rows()[:60]]
    texts += [text[: 3 * i] for i, text in enumerate(texts[:15], 1)]  # as short as one token
    documents = tokenize_documents(
        subject.tokenizer, [(str(i), text) for i, text in enumerate(texts)], 48
    )
    assert min(document.n_rows for document in documents) < 4

    def capture(documents: list[TokenizedDocument], name: str):
        return capture_shards(
            subject.model,
            documents,
            SITES,
            CaptureSettings(tmp_path / name, subject.revision, shard_tokens=400),
        )

    drawn = random.Random(0)
    known: set[tuple[int, ...]] = set()
    for n_documents in (20, 50, 75):
        tonight = drawn.sample(documents, n_documents)
        new = {document.token_ids for document in tonight} - known
        nightly = capture(tonight, "nightly")
        assert nightly.n_documents_run == len(new)
        known |= new
    scratch = capture(tonight, "scratch")
    assert len(scratch.shards[SITES[0].key]) > 2
    assert nightly.shards == scratch.shards  # with their checksums
