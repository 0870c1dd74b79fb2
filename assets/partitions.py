"""The partitions of the catalogue: a study, an activation site, and a fit at a site.

All are dynamic: their keys come from the study files (orchestration/partition_sync.py adds them),
so a new model, layer or rank needs no change of code.
"""

from __future__ import annotations

import warnings

import dagster as dg

STUDIES = dg.DynamicPartitionsDefinition(name="study")
SITES = dg.DynamicPartitionsDefinition(name="site")
FITS = dg.DynamicPartitionsDefinition(name="fit")
SITE_FITS = dg.MultiPartitionsDefinition({"fit": FITS, "site": SITES})


def site_of_fit() -> dg.MultiToSingleDimensionPartitionMapping:
    """Every fit of a site reads that site's activations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.MultiToSingleDimensionPartitionMapping("site")
