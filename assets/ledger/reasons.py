"""Why a partition is made again, in words: the named parts of before and now, compared.

Parts are made by assets/recipe.py. What is said first is what a user did (a prompt, a setting, the
model), then what came from upstream, then code.
"""

from __future__ import annotations

from collections.abc import Mapping

FIRST_TIME = "first time"
NOTHING_CHANGED = "nothing changed"
ORDER = ("prompt", "settings", "llm", "judge_llm", "model", "observed", "input", "code")
MOST_NAMED = 4
MISSING = "missing"


def reason_for(before: Mapping[str, str] | None, now: Mapping[str, str]) -> str:
    """E.g. "labels.max_features 6 → 8; contexts changed"; FIRST_TIME where nothing was before."""
    if before is None:
        return FIRST_TIME
    changed = sorted(
        (name for name in before.keys() | now.keys() if before.get(name) != now.get(name)),
        key=lambda name: (ORDER.index(name.partition(".")[0]), name),
    )
    if not changed:
        return NOTHING_CHANGED
    phrases = [_phrase(name, before.get(name), now.get(name)) for name in changed[:MOST_NAMED]]
    if len(changed) > MOST_NAMED:
        phrases.append(f"{len(changed) - MOST_NAMED} more")
    return "; ".join(phrases)


def retry_reason(n_rows: int, attempt: int) -> str:
    """Why a partition is made again though nothing changed."""
    return f"{n_rows} rows failed in a way that may pass; attempt {attempt}"


def rows_reason(n_written: int, n_there: int) -> str:
    """Why a partition is made again though nothing that it is made from changed."""
    return f"{n_written} rows were written, {n_there} are there"


def _phrase(name: str, before: str | None, now: str | None) -> str:
    kind, _, rest = name.partition(".")
    if kind == "input":
        table = rest.removesuffix(".of_input").replace(".of ", " of ", 1)
        if MISSING in (before, now):
            return f"{table} {'is there now' if before == MISSING else 'is not there (any more)'}"
        return f"{table} changed"
    if kind == "code":
        return f"{' '.join(name.split('.')).replace('_', ' ')} {before} → {now}"
    said = rest if kind in {"settings", "observed"} else f"{kind} {rest}"
    if before is None:
        return f"{said} is new: {now}"
    if now is None:
        return f"{said} is gone (was {before})"
    return f"{said} {before} → {now}"
