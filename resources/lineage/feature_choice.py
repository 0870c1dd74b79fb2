"""Which feature is meant: `<site> | <fit> | <id>`, or an id with site and fit told apart from it.

Site and fit may be a part of the name that fits one alone (L25 for …@L25.mlp_hidden), and may be
left out where the lake holds only one. What isn't there is answered with what is near.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from assets.factorization.tables import FACTORIZATIONS
from resources.lineage.provenance import LakeAtVersion

N_NAMED = 8
FORM = "expected FEATURE='<site> | <fit> | <id>', or FEATURE=<id> with SITE= and FIT="


class UnknownFeatureError(ValueError):
    """The lake holds no such feature, or several; the message names what is near."""


@dataclass(frozen=True)
class FeatureKey:
    """One feature of one fit at one site."""

    site: str
    fit: str
    feature_id: int

    def __str__(self) -> str:
        return f"{self.site} | {self.fit} | {self.feature_id}"

    @property
    def partition(self) -> dict[str, str]:
        return {"site": self.site, "fit": self.fit}

    @property
    def study(self) -> str:
        return self.site.partition(":")[0]


def find_feature(
    lake: LakeAtVersion, text: str, site: str | None = None, fit: str | None = None
) -> FeatureKey:
    """The feature that `text` (and `site`, `fit`) stands for.

    Raises UnknownFeatureError where the lake has no fit, no such feature, or more than one.
    """
    words = [word.strip() for word in text.split("|")]
    if len(words) == 3:
        site, fit = words[0], words[1]
    number = words[-1].removeprefix("#")
    if len(words) not in (1, 3) or not number.isdecimal():
        raise UnknownFeatureError(f"FEATURE={text!r} found; {FORM}")
    feature_id = int(number)
    fits = {(row["site"], row["fit"]): row for row in lake.rows(FACTORIZATIONS, {})}
    if not fits:
        raise UnknownFeatureError(
            f"the lake in {lake.lake.root} holds no fit at version {lake.snapshot}; make demo "
            "makes some"
        )
    pairs = _matching(list(fits), site, fit)
    with_id = [pair for pair in pairs if feature_id in feature_ids(fits[pair])]
    if len(pairs) == 1 and not with_id:
        raise UnknownFeatureError(_no_such_id(feature_id, *pairs[0], fits[pairs[0]]))
    if len(with_id) != 1:
        raise UnknownFeatureError(
            f"feature {feature_id} is in {len(with_id)} of {len(pairs)} fits; say which by SITE= "
            f"and FIT=: {_some([' | '.join(pair) for pair in with_id or pairs])}"
        )
    return FeatureKey(*with_id[0], feature_id)


def feature_ids(fit: dict) -> list[int]:
    """Ids of a row of `factorizations`; rows from before ids were kept count from 0."""
    return list(range(fit["n_features"] or 0)) if fit["feature_ids"] is None else fit["feature_ids"]


def _matching(
    pairs: Sequence[tuple[str, str]], site: str | None, fit: str | None
) -> list[tuple[str, str]]:
    """The (site, fit) pairs that both names fit."""
    sites = _named(site, sorted({pair[0] for pair in pairs}), "SITE")
    left = [pair for pair in pairs if pair[0] in sites]
    fits = _named(fit, sorted({pair[1] for pair in left}), "FIT")
    return [pair for pair in left if pair[1] in fits]


def _named(name: str | None, known: Sequence[str], variable: str) -> list[str]:
    """The known names that `name` stands for: the one itself, else those that it is a part of."""
    if not name:
        return list(known)
    if name in known:
        return [name]
    found = [one for one in known if name in one]
    if not found:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known
        raise UnknownFeatureError(
            f"{variable} {name!r} is not in the lake; near it: {_some(near)}; {FORM}"
        )
    return found


def _no_such_id(feature_id: int, site: str, fit: str, row: dict) -> str:
    ids = feature_ids(row)
    if not ids:
        return f"{site} | {fit} has no features: the fit is {row['status']}, {row['reason']}"
    near = sorted(sorted(ids, key=lambda one: abs(one - feature_id))[:N_NAMED])
    return (
        f"{site} | {fit} has no feature {feature_id}; it has {len(ids)}, near it: "
        f"{', '.join(map(str, near))}. Ids of features that were lost in a refit are not used again"
    )


def _some(names: Sequence[str]) -> str:
    rest = len(names) - N_NAMED
    return ", ".join(names[:N_NAMED]) + (f" and {rest} more" if rest > 0 else "")
