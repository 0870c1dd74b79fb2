"""The hierarchy assets of one fit: `feature_edges` and `neuron_overlap`."""

from collections.abc import Iterator

import dagster as dg

from assets.factorization.tables import DICTIONARY, FACTORIZATIONS
from assets.hierarchy.tables import FEATURE_EDGES, NEURON_OVERLAP, TABLES
from assets.partitions import SITE_FITS
from assets.stage_run import StageRun, specs_of_checks, table_specs
from resources.lake import LakeResource
from resources.study import StudiesResource


@dg.multi_asset(
    name="hierarchy",
    specs=table_specs(TABLES, deps=[DICTIONARY.name]),
    check_specs=specs_of_checks(TABLES),
    partitions_def=SITE_FITS,
)
def hierarchy_assets(
    context: dg.AssetExecutionContext, lake: LakeResource, studies: StudiesResource
) -> Iterator[dg.MaterializeResult]:
    from assets.factorization.frames import dictionary_matrix
    from assets.hierarchy.neuron_overlap import neuron_overlap_frame
    from assets.hierarchy.recursive import edges_frame, recursive_snmf

    run = StageRun(context, lake, studies)
    spec = run.fit()
    config = spec.study.hierarchy
    fitted = run.lake.read(FACTORIZATIONS, spec.partition).row(0, named=True)
    dictionary = dictionary_matrix(
        run.lake.read(DICTIONARY, spec.partition), fitted["n_features"], fitted["width"]
    )
    levels = recursive_snmf(dictionary, config)
    yield from run.write(
        {
            FEATURE_EDGES: edges_frame(levels, config.edge_threshold),
            NEURON_OVERLAP: neuron_overlap_frame(dictionary),
        },
        spec.partition,
        configs=[config],
        metadata={
            FEATURE_EDGES.name: {
                "parents_by_level": [len(level.dictionary) for level in levels],
                "explained_variance_by_level": [level.explained_variance for level in levels],
                "is_converged_by_level": [level.is_converged for level in levels],
            }
        },
    )
