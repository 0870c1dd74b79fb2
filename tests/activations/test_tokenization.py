"""Documents to tokens: prefix, cut, and pieces that read as the text did."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from assets.activations.tokenization import special_prefix, token_pieces, tokenize_documents
from tests.activations.tiny_models import word_tokenizer

TEXTS = [("a", "w0 w1 w2"), ("b", " ".join(f"w{i}" for i in range(20))), ("c", "")]


@pytest.mark.parametrize(("adds_bos", "prefix"), [(True, (1,)), (False, ())])
def test_prefix_and_cut(adds_bos: bool, prefix: tuple[int, ...]) -> None:
    tokenizer = word_tokenizer(adds_bos=adds_bos)
    assert special_prefix(tokenizer) == prefix
    short, long, empty = tokenize_documents(tokenizer, TEXTS, 8)
    assert short.token_ids == (*prefix, 4, 5, 6)
    assert (short.n_special_prefix, short.n_rows, short.is_truncated) == (len(prefix), 3, False)
    assert len(long.token_ids) == 8
    assert long.is_truncated
    assert long.token_ids[len(prefix) :] == tuple(range(4, 12 - len(prefix)))
    assert (empty.document_id, empty.n_rows) == ("c", 0)


def test_a_bos_written_in_the_text_is_no_prefix() -> None:
    (document,) = tokenize_documents(word_tokenizer(adds_bos=True), [("a", "<s> w0")], 8)
    assert document.token_ids == (1, 1, 4)
    assert document.n_rows == 2


def test_no_room_and_no_documents() -> None:
    tokenizer = word_tokenizer(adds_bos=True)
    with pytest.raises(ValueError, match="expected at least 2"):
        tokenize_documents(tokenizer, TEXTS, 1)
    assert tokenize_documents(tokenizer, [], 8) == []


def byte_level() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate(alphabet)} | {"Ġa": 256}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ġ", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def metaspace() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({"▁a": 0, "b": 1, "<unk>": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_pieces_keep_the_leading_space_and_mark_lone_bytes() -> None:
    tokenizer = byte_level()
    ids = tokenizer("x a é")["input_ids"]
    pieces = token_pieces(tokenizer, ids)
    assert [pieces[i] for i in ids] == ["x", " a", " ", "\ufffd", "\ufffd"]
    assert token_pieces(metaspace(), [0, 1, 0]) == {0: " a", 1: "b"}
