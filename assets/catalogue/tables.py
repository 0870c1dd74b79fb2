"""The lake tables of the catalogue: the gold layer, one row a feature, and what changed in it."""

from __future__ import annotations

from assets.shared.schema import FEATURE_ID, FIT, SITE, Column, Table, status_columns


def _gain(name: str, description: str) -> Column:
    return Column(name, "DOUBLE", description, "-2..2", True, minimum=-2.0, maximum=2.0)


FEATURES = Table(
    name="features",
    stage="catalogue",
    description="The catalogue: everything known of a feature in one row",
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column("study", "VARCHAR", "Study that the feature belongs to"),
        Column("model", "VARCHAR", "Subject model, by the name in its study"),
        Column("layer", "INTEGER", "Layer of the activation site, from 0", minimum=0),
        Column("site_kind", "VARCHAR", "mlp_in, mlp_hidden, mlp_out, attn_out or resid_post"),
        Column("method", "VARCHAR", "Factorization method, as in factorizations"),
        Column("is_control", "BOOLEAN", "The method is a null control"),
        Column("feature_name", "VARCHAR", "Concept, neuron or public latent it is", nullable=True),
        Column(
            "energy_share",
            "DOUBLE",
            "Share of the fit's squared coefficients that is its own",
            "share",
            nullable=True,
            minimum=0.0,
            maximum=1.000001,
        ),
        Column(
            "n_active_tokens", "BIGINT", "Tokens with a coefficient above zero", "tokens", minimum=0
        ),
        Column("max_coefficient", "DOUBLE", "Its largest coefficient", "activation", nullable=True),
        Column("n_neurons", "BIGINT", "Neurons with a weight in its dictionary row", "neurons"),
        Column("top_neurons", "INTEGER[]", "The ten neurons of largest absolute weight"),
        Column(
            "delta_cross_entropy",
            "DOUBLE",
            "Mean change of the model's cross-entropy when it is taken out, where it is strong; "
            "feature_faithfulness has the details",
            "nats",
            nullable=True,
        ),
        Column(
            "ablation_selectivity",
            "DOUBLE",
            "Cross-entropy that zeroing it adds where it is strong, minus what it adds at all "
            "other tokens of documents drawn at random; ablation_effects has the details",
            "nats",
            nullable=True,
        ),
        Column(
            "ablation_selectivity_null",
            "DOUBLE",
            "The same of its own null: with its neurons permuted, so of the same norm, at the same "
            "tokens",
            "nats",
            nullable=True,
        ),
        Column(
            "ablation_concept_selectivity",
            "DOUBLE",
            "Cross-entropy that zeroing it adds in documents of its concept, minus what it adds in "
            "documents of others, over all tokens of both",
            "nats",
            nullable=True,
        ),
        Column(
            "ablation_concept_selectivity_null",
            "DOUBLE",
            "The same of its own null, in the same documents",
            "nats",
            nullable=True,
        ),
        Column(
            "top_tokens",
            "VARCHAR[]",
            "Peak words of its strongest contexts, strongest first",
            nullable=True,
        ),
        Column(
            "promoted_tokens",
            "VARCHAR[]",
            "Vocabulary projection of + the feature, top ten",
            nullable=True,
        ),
        Column(
            "suppressed_tokens",
            "VARCHAR[]",
            "Vocabulary projection of − the feature, top ten",
            nullable=True,
        ),
        Column("label", "VARCHAR", "Input-centric label of the LLM", nullable=True),
        Column("output_label", "VARCHAR", "Output-centric label of the LLM", nullable=True),
        Column("combined_label", "VARCHAR", "Label of the LLM from both sides", nullable=True),
        Column("token_summary", "VARCHAR", "Label made of tokens, without an LLM", nullable=True),
        Column("label_status", "VARCHAR", "Status of the input-centric label", nullable=True),
        Column("label_reason", "VARCHAR", "Why the label's status is not ok", nullable=True),
        Column(
            "label_auroc",
            "DOUBLE",
            "Detection score of the input-centric label: AUROC of the judge on held-out contexts "
            "against random negatives",
            nullable=True,
            minimum=0.0,
            maximum=1.0,
        ),
        Column("label_balanced_accuracy", "DOUBLE", "The same as balanced accuracy", nullable=True),
        Column("concept", "VARCHAR", "Corpus concept that the feature detects best", nullable=True),
        Column("parent_concept", "VARCHAR", "Parent of that concept", nullable=True),
        Column(
            "concept_auroc",
            "DOUBLE",
            "AUROC of that concept on documents not used to choose it",
            nullable=True,
            minimum=0.0,
            maximum=1.0,
        ),
        Column("concept_auroc_low", "DOUBLE", "Lower end of its 95 % interval", nullable=True),
        Column("concept_auroc_high", "DOUBLE", "Upper end of its 95 % interval", nullable=True),
        Column(
            "s_cd",
            "DOUBLE",
            "Concept detection on sentences generated for its label (the input-centric one where "
            "the study asks for it: concept_detection.label_kind): log mean ratio; NULL also where "
            "a mean cosine is not above 0, however well the two kinds are told apart",
            nullable=True,
        ),
        Column("s_cd_status", "VARCHAR", "Status of s_cd", nullable=True),
        Column(
            "generated_auroc",
            "DOUBLE",
            "AUROC of the generated activating against the neutral sentences of s_cd (of the same "
            "lengths), by the same scores, whatever their sign",
            nullable=True,
            minimum=0.0,
            maximum=1.0,
        ),
        Column(
            "steering_score",
            "DOUBLE",
            "Best over signs and target KLs of the mean score over texts, of settings with half of "
            "their texts judged (steering_summaries, either, best_kl), by the first label of "
            "steering.judged_labels: input, unless the study says otherwise; so all steering_…",
            "0..2",
            nullable=True,
            minimum=0.0,
            maximum=2.0,
        ),
        Column(
            "steering_base_score",
            "DOUBLE",
            "Mean score, for the same label, of the unsteered base texts of the same numbers: what "
            "the judge gives for nothing",
            "0..2",
            nullable=True,
            minimum=0.0,
            maximum=2.0,
        ),
        _gain(
            "steering_gain",
            "Mean over these texts of score less base text's; those without the latter left out",
        ),
        Column("steering_sign", "VARCHAR", "Sign of that best setting", nullable=True),
        Column(
            "steering_target_kl_nats",
            "DOUBLE",
            "Target KL of that best setting",
            "nats",
            nullable=True,
        ),
        Column(
            "steering_strength",
            "DOUBLE",
            "Calibrated strength of that setting",
            "activation",
            nullable=True,
        ),
        Column("n_steered_texts", "BIGINT", "Texts judged in that setting", "texts", nullable=True),
        Column(
            "steering_score_held_out",
            "DOUBLE",
            "Mean score of texts, each in the setting (sign, target KL) that is best on the other "
            "half of the texts: steering_score without the luck of the best of many",
            "0..2",
            nullable=True,
            minimum=0.0,
            maximum=2.0,
        ),
        _gain(
            "steering_gain_held_out",
            "steering_score_held_out minus the score of unsteered texts",
        ),
        _gain(
            "steering_gain_plus",
            "steering_gain of the sign + alone: that of its best target KL (steering_summaries, +, "
            "best_kl)",
        ),
        _gain(
            "steering_gain_minus",
            "The same of the sign - (steering_summaries, -, best_kl)",
        ),
        _gain(
            "steering_gain_mean",
            "Mean gain over all target KLs that were reached and all their texts, of both signs: "
            "nothing is chosen (steering_summaries, either, mean_kl)",
        ),
        _gain(
            "steering_gain_mean_plus",
            "The same over the sign + alone (steering_summaries, +, mean_kl)",
        ),
        _gain(
            "steering_gain_mean_minus",
            "The same over the sign - alone (steering_summaries, -, mean_kl)",
        ),
        Column(
            "token_logprob_gain",
            "DOUBLE",
            "Judge-free: mean log-probability that steering (+, the study's largest target; NULL "
            "where that was not reached) adds to the feature's own tokens",
            "nats",
            nullable=True,
        ),
        Column(
            "input_score",
            "DOUBLE",
            "Judge-free: share of its top contexts whose peak token it also promotes (+)",
            "share",
            nullable=True,
            minimum=0.0,
            maximum=1.0,
        ),
        Column(
            "output_score",
            "DOUBLE",
            "Judge-free: rank-weighted probability of its promoted tokens when steered (+, the "
            "study's largest target; NULL where that was not reached); judge_free_scores has the "
            "details",
            nullable=True,
            minimum=0.0,
            maximum=1.0,
        ),
        Column(
            "label_logprob_gain",
            "DOUBLE",
            "Judge-free: mean log-probability that steering (+, the study's largest target; NULL "
            "where that was not reached) adds to the tokens of its label, of the first of "
            "steering.judged_labels",
            "nats/token",
            nullable=True,
        ),
        *status_columns("judged (labelled and steered), labelled, not_judged, failed"),
    ),
    key=("site", "fit", "feature_id"),
    partition_by=("site", "fit"),
)

CATALOGUE_CHANGES = Table(
    name="catalogue_changes",
    stage="catalogue",
    description=(
        "What the last run that changed a partition of features changed there: one row a feature "
        "and change. Between any two versions: make changes"
    ),
    columns=(
        SITE,
        FIT,
        FEATURE_ID,
        Column(
            "change",
            "VARCHAR",
            "added, lost, relabelled (another label, concept or parent concept), rescored (another "
            "score) or restated (another status or reason)",
        ),
        Column(
            "column_name",
            "VARCHAR",
            "Column of features that changed; of an added or lost feature, the one it is named by",
        ),
        Column("old_value", "VARCHAR", "What the column held before", nullable=True),
        Column("new_value", "VARCHAR", "What it holds since", nullable=True),
        Column(
            "difference",
            "DOUBLE",
            "New minus old score, in that column's unit; NULL where either is NULL or no score",
            nullable=True,
        ),
        Column(
            "from_snapshot",
            "BIGINT",
            "Snapshot that had written the rows before: features AT (VERSION => from_snapshot); "
            "NULL where there were none",
            nullable=True,
            is_volatile=True,
        ),
    ),
    key=("site", "fit", "feature_id", "change", "column_name"),
    partition_by=("site", "fit"),
)

TABLES = (FEATURES, CATALOGUE_CHANGES)
