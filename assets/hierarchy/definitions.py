"""The hierarchy assets of one fit: the tree of features, groups of them, and steering by groups."""

from collections.abc import Iterator

import dagster as dg

from assets.activations.tables import TOKENS
from assets.asset_specs import specs_of_checks, table_specs
from assets.common_inputs import (
    CONCEPTS,
    FITTED,
    FITTED_DICTIONARY,
    SITE_ACTIVATIONS,
    SITE_TOKENS,
)
from assets.corpus.tables import DOCUMENTS
from assets.fingerprints import code_version
from assets.hierarchy.group_tables import (
    GROUP_MEMBERS,
    GROUP_STEERING,
    GROUP_TABLES,
    NEURON_GROUPS,
    STEERING_TABLES,
)
from assets.hierarchy.tables import (
    FEATURE_EDGES,
    HIERARCHY_LEVELS,
    NEURON_OVERLAP,
    PARENT_FEATURES,
    TREE_TABLES,
)
from assets.partitions import SITE_FITS
from assets.recipe import Input, Recipe
from assets.shared.progress import Progress
from assets.shared.row_reuse import ROW_FINGERPRINT
from assets.stage_run import StageRun
from resources.lake import LakeResource
from resources.model_resource import SubjectModelResource
from resources.study_files import StudiesResource

# What each of the later two reads of the study's hierarchy; the tree reads all the others.
_GROUP_SETTINGS = {"groups", "members_by", "core_share", "member_keep_fraction"}
_STEERING_SETTINGS = {
    "groups",
    "core_share",
    "member_keep_fraction",
    "group_prompts",
    "group_target_kl_nats",
    "n_null_draws",
    "seed",
}
_OF_STEERING = {"neutral_prompts", "tolerance", "max_evaluations", "max_strength_ratio"}

# What makes the rows of group_steering, with what it imports.
STEERING_MODULE = "assets.hierarchy.group_steering"

TREE_RECIPE = Recipe(
    "hierarchy",
    stage="hierarchy",
    tables=TREE_TABLES,
    inputs=(
        *FITTED,
        Input(TOKENS, "site", columns=("row", "is_massive")),
        SITE_ACTIVATIONS,
    ),
    settings=lambda spec: {
        "hierarchy": spec.study.hierarchy.model_dump(
            exclude=(_GROUP_SETTINGS | _STEERING_SETTINGS) - {"seed"}
        ),
        "max_memory_gib": spec.fit.max_memory_gib,
    },
)
GROUPS_RECIPE = Recipe(
    "feature_groups",
    stage="hierarchy",
    tables=GROUP_TABLES,
    inputs=(*FITTED, SITE_TOKENS, SITE_ACTIVATIONS, CONCEPTS),
    settings=lambda spec: {
        "hierarchy": spec.study.hierarchy.model_dump(include=_GROUP_SETTINGS),
        "detection": {"seed": spec.study.detection.seed},
    },
    uses_model=True,
)
STEERING_RECIPE = Recipe(
    "group_steering",
    stage="hierarchy",
    tables=STEERING_TABLES,
    inputs=(*FITTED_DICTIONARY, Input(GROUP_MEMBERS), CONCEPTS),
    settings=lambda spec: {
        "hierarchy": spec.study.hierarchy.model_dump(include=_STEERING_SETTINGS),
        "steering": spec.study.steering.model_dump(include=_OF_STEERING),
    },
    uses_model=True,
)
RECIPES = (TREE_RECIPE, GROUPS_RECIPE, STEERING_RECIPE)


@dg.multi_asset(
    name=TREE_RECIPE.name,
    specs=table_specs(TREE_RECIPE),
    check_specs=specs_of_checks(TREE_RECIPE),
    partitions_def=SITE_FITS,
)
def hierarchy_tree(
    context: dg.AssetExecutionContext, lake: LakeResource, studies: StudiesResource
) -> Iterator[dg.MaterializeResult]:
    yield from StageRun(context, TREE_RECIPE, lake, studies).materialize(_grow_tree)


def _grow_tree(run: StageRun) -> Iterator[dg.MaterializeResult]:
    import torch

    from assets.hierarchy.neuron_overlap import neuron_overlap_frame
    from assets.hierarchy.token_sample import sampled_rows
    from assets.hierarchy.tree_frames import edges_frame, parents_frame, stored_levels
    from assets.hierarchy.tree_study import study_tree

    spec = run.fit()
    config = spec.study.hierarchy
    site = {"site": spec.site.key}
    fitted = run.fitted(spec)
    is_massive = run.lake.read(TOKENS, site, columns=("row", "is_massive")).sort("row")
    kept = torch.from_numpy(~is_massive["is_massive"].to_numpy())
    reader = run.activations(spec.site)
    chosen = sampled_rows(
        kept,
        reader.width,
        spec.fit.max_memory_gib,
        n_least=len(fitted.feature_ids),
        seed=config.seed,
    )
    with Progress(run.log, "fine-tuning", config.fine_tune_max_iter, "iterations") as progress:
        tree = study_tree(
            fitted.dictionary,
            lambda: reader.load(keep=chosen),
            config,
            n_tokens=int(kept.sum()),
            penalty=fitted.row["coefficient_penalty"] or 0.0,
            offset=fitted.row["offset_vector"],
            on_iteration=lambda i, _: progress.reach(i, config.fine_tune_max_iter),
        )
    stored = stored_levels(tree.levels, tree.tuning and tree.tuning.after.tree)
    yield from run.write(
        {
            FEATURE_EDGES: edges_frame(stored, config.edge_threshold, fitted.feature_ids),
            PARENT_FEATURES: parents_frame(stored),
            HIERARCHY_LEVELS: tree.rows,
            NEURON_OVERLAP: neuron_overlap_frame(fitted.dictionary, fitted.feature_ids),
        },
        metadata={
            HIERARCHY_LEVELS.name: {
                name: dg.MetadataValue.md(text) for name, text in tree.shown().items()
            }
        },
    )


@dg.multi_asset(
    name=GROUPS_RECIPE.name,
    specs=table_specs(GROUPS_RECIPE),
    check_specs=specs_of_checks(GROUPS_RECIPE),
    partitions_def=SITE_FITS,
    pool="subject_model",
)
def feature_groups(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    studies: StudiesResource,
    subject_models: SubjectModelResource,
) -> Iterator[dg.MaterializeResult]:
    run = StageRun(context, GROUPS_RECIPE, lake, studies, subject_models)
    yield from run.materialize(_group_features)


def _group_features(run: StageRun) -> Iterator[dg.MaterializeResult]:
    from assets.detection.site_scores import corpus_scores
    from assets.hierarchy.group_members import concept_groups, group_members_frame
    from assets.hierarchy.group_rows import group_rows, neuron_groups
    from assets.hierarchy.group_steering import measured_tokens
    from assets.hierarchy.promoted_concepts import concept_promotion

    spec = run.fit()
    config = spec.study.hierarchy
    site = {"site": spec.site.key}
    documents = run.lake.read(
        DOCUMENTS,
        {"study": spec.study.name, "status": "ok"},
        columns=("document_id", "minhash", "concept", "parent_concept"),
    )
    with_concept = documents.drop_nulls("concept")
    groups = concept_groups(
        config.groups, dict(with_concept.select("concept", "parent_concept").iter_rows())
    )
    fitted = run.fitted(spec)
    promotion = None
    if config.members_by == "promoted_tokens" and groups:
        subject = run.subject()
        concepts = sorted({concept for group in groups for concept in group.concepts})
        promotion = concept_promotion(
            subject.model,
            spec.site.activation_site,
            fitted.dictionary,
            measured_tokens(subject.tokenizer, concepts),
        )
    members = group_members_frame(
        groups,
        corpus_scores(
            run.activations(spec.site),
            run.lake.read(TOKENS, site, columns=("row", "document_id", "is_massive")),
            documents["document_id"].to_list(),
            fitted.dictionary,
        ),
        documents["minhash"].to_list(),
        documents["concept"].to_list(),
        fitted.feature_ids,
        spec.study.detection.seed,
        promotion,
    )
    names = [group.name for group in groups]
    rows = group_rows(names, members, fitted.dictionary, fitted.feature_ids, config)
    yield from run.write(
        {GROUP_MEMBERS: members, NEURON_GROUPS: neuron_groups(rows, config.core_share)}
    )


@dg.multi_asset(
    name=STEERING_RECIPE.name,
    specs=table_specs(STEERING_RECIPE),
    check_specs=specs_of_checks(STEERING_RECIPE),
    partitions_def=SITE_FITS,
    pool="subject_model",
)
def group_steering(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    studies: StudiesResource,
    subject_models: SubjectModelResource,
) -> Iterator[dg.MaterializeResult]:
    run = StageRun(context, STEERING_RECIPE, lake, studies, subject_models)
    yield from run.materialize(_steer_groups)


def _steer_groups(run: StageRun) -> Iterator[dg.MaterializeResult]:
    import polars as pl

    from assets.hierarchy.group_plan import steering_plan
    from assets.hierarchy.group_rows import group_rows
    from assets.hierarchy.group_summary import group_metadata
    from assets.shared.row_reuse import reusable_rows
    from assets.steering.forward_count import count_forward_tokens

    spec = run.fit()
    config = spec.study.hierarchy
    frame, forward_tokens = GROUP_STEERING.empty().drop(GROUP_STEERING.partition_by), 0
    if config.groups:
        subject = run.subject()
        fitted = run.fitted(spec)
        members = run.lake.read(GROUP_MEMBERS, spec.partition)
        groups = group_rows(config.groups, members, fitted.dictionary, fitted.feature_ids, config)
        documents = run.lake.read(
            DOCUMENTS, {"study": spec.study.name, "status": "ok"}, columns=("concept",)
        )
        concepts = documents["concept"].drop_nulls().unique().sort().to_list()
        plan = steering_plan(groups, concepts, subject.tokenizer, config, spec.study.steering)
        made_with = plan.fingerprint(
            code_version("hierarchy", (STEERING_MODULE,)),
            subject.revision,
            subject.dtype,
            spec.site.activation_site.key,
        )
        rows = run.lake.read(GROUP_STEERING, spec.partition)
        if run.state.has_all_rows and reusable_rows(rows, [made_with]):
            yield from run.keep(STEERING_TABLES)
            return
        with (
            Progress(run.log, "steering by groups", len(plan.interventions), "curves") as progress,
            count_forward_tokens(subject.model) as count,
        ):
            frame = plan.run(subject.model, spec.site.activation_site, progress.reach).with_columns(
                pl.lit(made_with).alias(ROW_FINGERPRINT.name)
            )
        forward_tokens = count.n_tokens
    yield from run.write(
        {GROUP_STEERING: frame},
        metadata={
            GROUP_STEERING.name: {
                "forward_tokens": forward_tokens,
                **{name: dg.MetadataValue.md(text) for name, text in group_metadata(frame).items()},
            }
        },
    )


hierarchy_assets = [hierarchy_tree, feature_groups, group_steering]
