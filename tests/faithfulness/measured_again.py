"""A fit measured once (`FIRST`), and measured again with its rows in the lake."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest

from assets.activations.sites import ActivationSite
from assets.faithfulness.config import FaithfulnessConfig
from assets.faithfulness.fit import Fit
from assets.faithfulness.measure import Measured, measure_faithfulness
from assets.faithfulness.sample import SampledDocument
from assets.faithfulness.tables import FAITHFULNESS_DOCUMENTS
from tests.activations.tiny_models import tiny_model
from tests.faithfulness.changing_sample import Forwards, counted_forwards, fit_on, sampled

MODEL, SITE = tiny_model("llama"), ActivationSite(1)
CONFIG = FaithfulnessConfig(batch_tokens=24, n_documents_per_feature=2)
MADE_WITH = ("code", "revision", "float32")
PARTITION = {"site": "study:m@L1.mlp_hidden", "fit": "snmf-k004"}
NAMES = ["a", "b", "c", "m", "n"]


def measure(
    before: Measured | pl.DataFrame | None = None,
    names: Sequence[str] = NAMES,
    *,
    fit: Fit | None = None,
    ids: Sequence[int] | None = None,
    sample: list[SampledDocument] | None = None,
    made_with: tuple[str, ...] = MADE_WITH,
    n_documents: int = 100,
    config: FaithfulnessConfig = CONFIG,
) -> tuple[Measured, Forwards]:
    """What is measured with the rows of `before` in the lake, and what went through the model."""
    fit = fit or fit_on(names)
    previous = stored(before) if isinstance(before, Measured) else before
    with counted_forwards(MODEL) as forwards:
        measured = measure_faithfulness(
            MODEL,
            SITE,
            sample or sampled(names, n_documents),
            fit,
            list(fit.feature_ids) if ids is None else ids,
            config,
            made_with=made_with,
            previous=previous,
        )
    assert measured.work.spent.forward_tokens == forwards.n_tokens, "the count is not true"
    assert measured.work.rows_reused + measured.work.rows_computed == len(measured.documents)
    return measured, forwards


def stored(measured: Measured) -> pl.DataFrame:
    """The rows as a later run reads them from the lake: conformed, in key order."""
    table = FAITHFULNESS_DOCUMENTS
    return table.conform(measured.documents, PARTITION).sort(table.key)


def computed(measured: Measured, before: Measured) -> pl.DataFrame:
    """Rows whose fingerprint was not there before."""
    known = before.documents["row_fingerprint"].implode()
    return measured.documents.filter(~pl.col("row_fingerprint").is_in(known))


def assert_close(one: Measured, other: Measured) -> None:
    for name in ("documents", "replacements", "features"):
        a, b = getattr(one, name), getattr(other, name)
        for column in a.columns:
            if a[column].dtype.is_float():
                assert a[column].to_list() == pytest.approx(b[column].to_list(), abs=1e-4)
            else:
                assert a[column].to_list() == b[column].to_list(), column


def assert_same(one: Measured, other: Measured) -> None:
    for name in ("documents", "replacements", "features"):
        assert getattr(one, name).equals(getattr(other, name)), name


FIRST = measure()[0]
