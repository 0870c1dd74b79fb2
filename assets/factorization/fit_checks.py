"""Which settings of a fit may stand together: a contradiction, or one without effect, is an error.

Pure functions of the settings, each of which raises ValueError with what was found, what was
expected and what to do. The settings themselves, and the bounds of each, are in config.py; what the
activations do not admit is found when a fit starts (inputs.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from assets.factorization.method_traits import (
    ITERATED_METHODS,
    METHODS_WITHOUT_RANK,
    TRAINED_METHODS,
    TRAINING_SETTINGS,
    TRANSCODER_KIND,
)

if TYPE_CHECKING:
    from assets.factorization.config import FitConfig


def check_settings_agree(fit: FitConfig) -> None:
    """Raise ValueError for the first settings that do not go together."""
    _rank_fits_method(fit)
    _refits_fit_method(fit)
    _settings_fit_method(fit)
    _settings_have_an_effect(fit)
    _kinds_fit_method(fit)


def _rank_fits_method(fit: FitConfig) -> None:
    if fit.method in METHODS_WITHOUT_RANK and fit.rank is not None:
        raise ValueError(
            f"method {fit.method!r} takes no rank (found {fit.rank}): it makes one feature a "
            "concept; remove the rank"
        )
    needs_rank = fit.method not in METHODS_WITHOUT_RANK and fit.path is None
    if needs_rank and fit.rank is None:
        raise ValueError(f"method {fit.method!r} needs a rank, the number of features")
    if fit.method == "pca" and isinstance(fit.rank, int) and fit.rank % 2:
        raise ValueError(
            f"method 'pca' needs an even rank (found {fit.rank}): each component makes a "
            "positive and a negative feature"
        )


def _refits_fit_method(fit: FitConfig) -> None:
    if fit.rank == "auto" and fit.method != "snmf":
        raise ValueError(
            f"method {fit.method!r} takes no rank: auto; expected a number (only snmf has its "
            "rank chosen)"
        )
    if fit.rank_candidates is not None and fit.rank != "auto":
        raise ValueError(
            f"rank_candidates found with rank {fit.rank}; expected rank: auto beside them"
        )
    if fit.rank_candidates is not None and min(fit.rank_candidates) < 1:
        raise ValueError(f"rank_candidates {fit.rank_candidates} found; expected 1 or more")
    if fit.stability_seeds and fit.method != "snmf":
        raise ValueError(
            f"stability_seeds found for method {fit.method!r}; expected only for snmf: remove them"
        )
    if fit.on_new_tokens == "project" and fit.path is not None:
        raise ValueError(
            "on_new_tokens: project found for a public SAE, whose strongest latents are chosen "
            "anew; expected auto or refit"
        )


def _settings_fit_method(fit: FitConfig) -> None:
    if fit.path is not None and fit.method != "sae":
        raise ValueError(
            f"method {fit.method!r} takes no path (found {fit.path!r}): only an sae is read "
            "from a folder; remove the path"
        )
    given = [name for name in TRAINING_SETTINGS if getattr(fit, name) is not None]
    if given and (fit.method not in TRAINED_METHODS or fit.path is not None):
        what = "an sae read from `path`" if fit.path is not None else repr(fit.method)
        raise ValueError(
            f"{', '.join(given)} mean nothing for {what}; expected only where the method is "
            f"trained here ({', '.join(TRAINED_METHODS)}): remove them"
        )
    if (
        fit.active_features is not None
        and isinstance(fit.rank, int)
        and fit.active_features > fit.rank
    ):
        raise ValueError(
            f"active_features {fit.active_features} exceeds the rank {fit.rank}; expected at "
            "most the number of features"
        )


def _settings_have_an_effect(fit: FitConfig) -> None:
    inert: set[str] = set()
    if not fit.is_sparse:
        inert |= {"keep_fraction", "coefficient_penalty", "penalty_concavity"}
    if not fit.is_iterative:
        inert |= {"solver", "init", "column_scaling", "row_scaling"}
    elif fit.solver == "multiplicative":
        inert |= {"coefficient_penalty", "penalty_concavity", "column_scaling", "row_scaling"}
    if fit.method not in ITERATED_METHODS:
        inert |= {"max_iter", "tol"}
    if fit.rank != "auto":
        inert |= {"rank_seeds"}
    if not fit.projects_little_changes:
        inert |= {"refit_share"}
    ignored = sorted(fit.model_fields_set & inert)
    if fit.device == "cuda" and not fit.is_sparse:
        ignored.append("device: cuda")
    if ignored:
        raise ValueError(
            f"{', '.join(ignored)} found for method {fit.method!r} with rank {fit.rank}, "
            "where it has no effect; remove it"
        )
    if fit.split_threshold > fit.match_threshold:
        raise ValueError(
            f"split_threshold {fit.split_threshold} found above match_threshold "
            f"{fit.match_threshold}; expected at most that"
        )


def _kinds_fit_method(fit: FitConfig) -> None:
    if fit.kinds is not None and len(set(fit.kinds)) != len(fit.kinds):
        raise ValueError(f"kinds {fit.kinds} names one twice; expected each once")
    if fit.method == "transcoder" and fit.kinds not in (None, (TRANSCODER_KIND,)):
        raise ValueError(
            f"a transcoder's features live at {TRANSCODER_KIND} (found kinds {fit.kinds}); "
            "remove kinds"
        )
