"""A changed corpus: only documents never captured go through the model; all else stays the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from torch import nn

from assets.activations import shards
from assets.activations.capture import capture_shards
from assets.activations.sites import ActivationSite, locate_blocks
from assets.activations.tokenization import TokenizedDocument
from tests.activations.changing_corpus import (
    FIRST,
    SECOND,
    SITES,
    assert_same_capture,
    content,
    corpus,
    documents_run,
    settings,
    stored,
)
from tests.activations.tiny_models import tiny_model


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny_model("llama")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    return documents_run(monkeypatch)


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["add", "edit", "remove", "shuffle"]),
        st.integers(0, 999),
        st.integers(0, 40),
    ),
    min_size=1,
    max_size=8,
)


def edited(numbers: Sequence[int], edits: Sequence[tuple[str, int, int]]) -> list[int]:
    numbers = list(numbers)
    for what, where, number in edits:
        place = where % (len(numbers) + 1)
        if what == "add":
            numbers.insert(place, number)
        elif what == "edit":
            numbers[place : place + 1] = [number]
        elif what == "remove" and len(numbers) > 1:
            del numbers[place : place + 1]
        elif what == "shuffle":
            random.Random(where).shuffle(numbers)
    return numbers


@given_settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.lists(st.integers(0, 40), min_size=1, max_size=25),
    nights=st.lists(EDITS, min_size=1, max_size=4),
)
def test_any_edits_give_what_a_capture_from_scratch_gives(
    model: nn.Module,
    ran: list[tuple[int, ...]],
    tmp_path_factory: pytest.TempPathFactory,
    start: list[int],
    nights: list[list[tuple[str, int, int]]],
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    numbers, known = start, set()
    for edits in [[], *nights]:
        numbers = edited(numbers, edits)
        docs = corpus(numbers)
        ran.clear()
        found = capture_shards(model, docs, SITES, settings(folder))
        new = {content(number) for number in numbers} - known
        assert sorted(ran) == sorted(new)
        assert found.n_documents_run == len(new)
        assert found.n_documents_reused == len(docs) - len(new)
        assert found.n_forward_tokens == sum(map(len, new))
        assert found.n_rows_run == sum(len(tokens) - 1 for tokens in new)
        known |= new
        scratch = tmp_path_factory.mktemp("scratch")
        expected = capture_shards(model, docs, SITES, settings(scratch))
        assert_same_capture(found, folder, expected, scratch)


def test_one_document_in_500_runs_one_document_and_rewrites_few_shards(
    model: nn.Module, tmp_path: Path
) -> None:
    docs = corpus(range(500))
    config = settings(tmp_path, shard_tokens=300)
    full = capture_shards(model, docs, SITES, config)
    assert full.n_documents_run == 500
    assert full.n_forward_tokens == sum(len(d.token_ids) for d in docs)

    changes: list[Callable[[list[TokenizedDocument]], list[TokenizedDocument]]] = [
        lambda docs: [*docs[:250], *corpus([700]), *docs[250:]],
        lambda docs: [*corpus([701]), *docs[1:]],
    ]
    for change in changes:
        docs = change(docs)
        night = capture_shards(model, docs, SITES, config)
        assert night.n_documents_run == 1
        assert night.n_documents_reused == len(docs) - 1
        assert 0 < night.n_forward_tokens <= 0.01 * full.n_forward_tokens
        assert night.n_shards_written <= 0.2 * full.n_shards_written
    without = capture_shards(model, [*docs[:100], *docs[101:]], SITES, config)
    assert without.n_forward_tokens == without.n_padding == without.n_forward_passes == 0
    again = capture_shards(model, docs, SITES, config)
    assert again.n_shards_written == again.n_forward_tokens == 0


def test_documents_with_the_same_tokens_are_run_once(
    model: nn.Module, ran: list[tuple[int, ...]], tmp_path: Path
) -> None:
    numbers = [3, 3, 9, 3, *range(20, 40), 9, 3]
    result = capture_shards(model, corpus(numbers), SITES, settings(tmp_path))
    assert len(result.shards[FIRST.key]) > 2
    assert sorted(ran) == sorted({content(number) for number in numbers})
    assert (result.n_documents_run, result.n_documents_reused) == (22, 4)
    rows = stored(result, FIRST, tmp_path).split([d.n_rows for d in corpus(numbers)])
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[0], rows[-1])
    assert torch.equal(rows[2], rows[-2])


def test_each_site_keeps_what_it_has_and_one_forward_gives_the_rest(
    ran: list[tuple[int, ...]], tmp_path: Path
) -> None:
    """Other weights under the same revision show which rows were copied and which were run."""
    before, after = tiny_model("llama"), tiny_model("llama", seed=1)
    capture_shards(before, corpus(range(10, 30)), [FIRST], settings(tmp_path))
    capture_shards(before, corpus(range(20, 40)), [SECOND], settings(tmp_path))
    ran.clear()
    docs = corpus([*range(50, 53), *range(39, 9, -1)])
    result = capture_shards(after, docs, SITES, settings(tmp_path))
    assert sorted(ran) == sorted(content(n) for n in [*range(10, 20), *range(30, 40), 50, 51, 52])
    old, new = (
        capture_shards(m, docs, SITES, settings(tmp_path / str(i)))
        for i, m in enumerate((before, after))
    )
    sizes = [d.n_rows for d in docs]
    numbers = [50, 51, 52, *range(39, 9, -1)]
    for site, kept in ((FIRST, range(10, 30)), (SECOND, range(20, 40))):
        found = stored(result, site, tmp_path).split(sizes)
        from_old = stored(old, site, tmp_path / "0").split(sizes)
        from_new = stored(new, site, tmp_path / "1").split(sizes)
        for i, number in enumerate(numbers):
            expected = from_old[i] if number in kept else from_new[i]
            torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=1e-3)
            assert not torch.allclose(from_old[i], from_new[i], rtol=0.1)


def test_the_model_runs_only_as_far_as_a_site_lacks_a_document(tmp_path: Path) -> None:
    model = tiny_model("llama")
    capture_shards(model, corpus(range(20)), [SECOND], settings(tmp_path))
    blocks: list[int] = []
    for i, block in enumerate(locate_blocks(model)):
        block.register_forward_hook(lambda *_, i=i: blocks.append(i))
    capture_shards(model, corpus(range(19, -1, -1)), SITES, settings(tmp_path))
    assert set(blocks) == {0}


@pytest.mark.parametrize("change", [{"model_revision": "r2"}, {"dtype": "bfloat16"}])
def test_rows_of_another_model_or_number_type_are_not_copied(
    model: nn.Module, tmp_path: Path, change: dict[str, str]
) -> None:
    capture_shards(model, corpus(range(20)), SITES, settings(tmp_path))
    other = capture_shards(model, corpus(range(10)), SITES, settings(tmp_path, **change))
    assert other.n_documents_run == 10


def test_the_same_tokens_with_another_prefix_are_another_document(
    model: nn.Module, tmp_path: Path
) -> None:
    capture_shards(model, corpus(range(20)), SITES, settings(tmp_path))
    bare = [TokenizedDocument(d.document_id, d.token_ids, 0) for d in corpus(range(10))]
    assert capture_shards(model, bare, SITES, settings(tmp_path)).n_documents_run == 10


def test_rows_keep_float32_where_a_new_document_needs_it(tmp_path: Path) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[63] *= 1e8
    site = ActivationSite(0, "resid_post")
    docs = [TokenizedDocument(f"d{i}", (5 + i, 6, 7), 0) for i in range(10)]
    large = TokenizedDocument("large", (63, 63), 0)
    config = settings(tmp_path, shard_tokens=1000)
    small = capture_shards(model, docs, [site], config)
    mixed = capture_shards(model, [*docs, large], [site], config)
    assert mixed.n_documents_run == 1
    assert [file.dtype for file in small.shards[site.key]] == ["float16"]
    assert [file.dtype for file in mixed.shards[site.key]] == ["float32"]
    rows = stored(mixed, site, tmp_path)
    assert torch.equal(rows[:30], stored(small, site, tmp_path))
    assert rows[30:].abs().max() > shards.FLOAT16_MAX
