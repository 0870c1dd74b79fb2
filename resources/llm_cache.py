"""Answers of chat models kept on disk, so that no completed call is ever made twice.

One SQLite file (write-ahead log) in a folder, keyed by `ChatRequest.request_hash`. Every answer is
committed as soon as it is there: a killed run loses at most the calls under way. Threads share one
connection behind a lock; processes share the file.

Kept is every answer as it came, usable or not (refused, cut off, no JSON), under the request that
was sent; what the answers to a request amount to is read anew each time (chat_replies.py). An
unusable answer was paid for too, and with its seed and mostly temperature 0 the same request would
get it again: asking each night anew would pay for nothing. Whatever could bring another answer
(prompt, label, max_tokens, model, address, the text of the repair) makes another request.
Not kept are calls without an answer: 429, 5xx, timeouts, a refused key; nor answers that the token
limit cut off before any text, since how long a model thinks differs from call to call.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

FILE_NAME = "llm_answers.sqlite"
BUSY_SECONDS = 30.0
QUERY_CHUNK = 500

_CREATE = """
CREATE TABLE IF NOT EXISTS answers (
    request_hash TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    text TEXT NOT NULL,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    seconds REAL NOT NULL,
    first_token_logprobs TEXT NOT NULL,
    answered_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
) WITHOUT ROWID
"""
# Columns that files of an older version lack, with their types.
_ADDED = {
    "finish_reason": "TEXT",
    "refusal": "TEXT",
    "price_factor": "REAL NOT NULL DEFAULT 1.0",
    "answer_logprob": "REAL",
    "dropped_parameters": "TEXT NOT NULL DEFAULT '[]'",
}
# Fields of `Answer`.
_COLUMNS = (
    *("model", "text", "prompt_tokens", "completion_tokens", "seconds"),
    *("first_token_logprobs", *_ADDED),
)
_REPLACED = ", ".join(f"{name} = excluded.{name}" for name in (*_COLUMNS, "answered_at"))
# As Answer.is_cut_without_text; older versions kept such answers.
_CUT_WITHOUT_TEXT = (
    "answers.finish_reason = 'length' AND trim(answers.text) = '' AND answers.refusal IS NULL "
    "AND answers.first_token_logprobs = '{}' AND answers.answer_logprob IS NULL"
)

logger = logging.getLogger(__name__)


class LlmCacheError(RuntimeError):
    """The cache file cannot be opened or is no SQLite file."""


@dataclass(frozen=True)
class Answer:
    """One completed call: text, tokens, seconds it took, log-probabilities of the first token.

    `finish_reason` is the endpoint's (stop, length, content_filter); `refusal` says what the model
    or the provider said where it would not answer; `price_factor` is 1, less for batched calls;
    `dropped_parameters` are those that it was made without, as the endpoint refuses them.
    """

    model: str
    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float = 0.0
    first_token_logprobs: Mapping[str, float] = field(default_factory=dict)
    finish_reason: str | None = None
    refusal: str | None = None
    price_factor: float = 1.0
    answer_logprob: float | None = None
    dropped_parameters: tuple[str, ...] = ()

    @property
    def is_cut_without_text(self) -> bool:
        """Whether the token limit came before any text, as where a model only thought so far."""
        has_some = self.text.strip() or self.first_token_logprobs or self.refusal
        return self.finish_reason == "length" and not has_some and self.answer_logprob is None


class LlmCache:
    """A folder's answers, read in bulk and written one by one."""

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / FILE_NAME
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(_CREATE)
            self._add_columns()
        except (OSError, sqlite3.Error) as error:
            raise LlmCacheError(
                f"the cache of LLM answers {self.path} cannot be used: {error}; mend or remove the "
                "file (only the saved calls are lost)"
            ) from error

    def __repr__(self) -> str:
        return f"LlmCache({str(self.path)!r})"

    def _add_columns(self) -> None:
        """What a file of an older version lacks; another process may do the same just now."""
        with contextlib.closing(self._connection.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            there = {row[1] for row in cursor.execute("PRAGMA table_info(answers)").fetchall()}
            for name, kind in _ADDED.items():
                if name not in there:
                    cursor.execute(f"ALTER TABLE answers ADD COLUMN {name} {kind}")
            cursor.execute("COMMIT")

    def read(self, request_hashes: Iterable[str]) -> dict[str, Answer]:
        """The answers that are there, by request hash."""
        wanted = list(dict.fromkeys(request_hashes))
        found: dict[str, Answer] = {}
        for start in range(0, len(wanted), QUERY_CHUNK):
            chunk = wanted[start : start + QUERY_CHUNK]
            marks = ",".join("?" * len(chunk))
            query = (
                f"SELECT request_hash, {', '.join(_COLUMNS)} FROM answers "
                f"WHERE request_hash IN ({marks})"
            )
            with self._lock:
                rows = self._connection.execute(query, chunk).fetchall()
            for request_hash, *values in rows:
                named = dict(zip(_COLUMNS, values, strict=True))
                logprobs = json.loads(named.pop("first_token_logprobs"))
                dropped = tuple(json.loads(named.pop("dropped_parameters")))
                found[request_hash] = Answer(
                    **named, first_token_logprobs=logprobs, dropped_parameters=dropped
                )
        return found

    def write(self, request_hash: str, answer: Answer) -> None:
        """Keep one answer, committed at return; the first one written for a request stays, unless
        the token limit cut it off before any text.

        A write that fails (disk full) is logged and loses the saving, not the answer.
        """
        named = {name: getattr(answer, name) for name in _COLUMNS}
        named["first_token_logprobs"] = json.dumps(
            dict(answer.first_token_logprobs), ensure_ascii=False
        )
        named["dropped_parameters"] = json.dumps(answer.dropped_parameters)
        values = (request_hash, *named.values())
        statement = (
            f"INSERT INTO answers (request_hash, {', '.join(_COLUMNS)}) "
            f"VALUES ({', '.join('?' * len(values))}) "
            f"ON CONFLICT (request_hash) DO UPDATE SET {_REPLACED} WHERE {_CUT_WITHOUT_TEXT}"
        )
        try:
            with self._lock:
                self._connection.execute(statement, values)
        except sqlite3.Error as error:
            logger.warning("an LLM answer could not be kept in %s: %s", self.path, error)

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def answer_times(folder: Path, request_hashes: Iterable[str]) -> dict[str, str]:
    """When requests were answered (ISO 8601, UTC), of those in a folder's cache; read only."""
    path = Path(folder) / FILE_NAME
    if not path.exists():
        return {}
    wanted = json.dumps(list(request_hashes))
    query = (
        "SELECT request_hash, answered_at FROM answers "
        "WHERE request_hash IN (SELECT value FROM json_each(?))"
    )
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return dict(connection.execute(query, [wanted]).fetchall())
