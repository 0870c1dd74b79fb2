"""Documents to token ids, and token ids to readable pieces.

A document is its special prefix (a BOS, where the tokenizer adds one) and its own tokens, cut at
`max_tokens`; what a tokenizer appends (an EOS) is left out, since nothing is read there. Running
the tokens through a model is capture.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_PROBE = "a"
_METASPACE = "\u2581"  # how SentencePiece vocabularies write a leading space


@dataclass(frozen=True)
class TokenizedDocument:
    """Token ids with the special prefix in front, and whether the text went on further."""

    document_id: str
    token_ids: tuple[int, ...]
    n_special_prefix: int
    is_truncated: bool = False

    @property
    def n_rows(self) -> int:
        """Tokens of the document's own, each of which gets an activation row."""
        return len(self.token_ids) - self.n_special_prefix


def tokenize_documents(
    tokenizer: Any, documents: Sequence[tuple[str, str]], max_tokens: int
) -> list[TokenizedDocument]:
    """Tokenizes (document_id, text) pairs, at most `max_tokens` each, prefix included.

    Raises ValueError when the prefix leaves no room for a token of the document.
    """
    prefix = special_prefix(tokenizer)
    room = max_tokens - len(prefix)
    if room < 1:
        raise ValueError(
            f"max_tokens={max_tokens} leaves no room: the tokenizer puts {len(prefix)} special "
            f"tokens in front; expected at least {len(prefix) + 1}"
        )
    if not documents:
        return []
    texts = [text for _, text in documents]
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return [
        TokenizedDocument(
            document_id=document_id,
            token_ids=(*prefix, *ids[:room]),
            n_special_prefix=len(prefix),
            is_truncated=len(ids) > room,
        )
        for (document_id, _), ids in zip(documents, encoded, strict=True)
    ]


def special_prefix(tokenizer: Any) -> tuple[int, ...]:
    """The ids that the tokenizer puts before every text; empty for SmolLM2, GPT-2 and Pythia."""
    bare = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    full = tokenizer(_PROBE, add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if list(full[start : start + len(bare)]) == list(bare):
            return tuple(full[:start])
    raise ValueError(
        f"the tokenizer turns {_PROBE!r} into {list(full)} with special tokens and {list(bare)} "
        "without; expected the second to lie within the first"
    )


def token_pieces(tokenizer: Any, token_ids: Iterable[int]) -> dict[int, str]:
    """The text of each distinct token alone, leading space kept.

    Bytes that are no character by themselves show as the replacement character U+FFFD.
    """
    pieces: dict[int, str] = {}
    for token_id in set(token_ids):
        piece = tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
        symbol = tokenizer.convert_ids_to_tokens(token_id)
        # SentencePiece decoders drop the space at the start of a text.
        if isinstance(symbol, str) and symbol.startswith(_METASPACE) and piece[:1] != " ":
            piece = " " + piece
        pieces[token_id] = piece
    return pieces
