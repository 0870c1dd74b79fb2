"""Of how many features each metric was attempted, as one SQL query over the stages, for one site.

A study caps how many features a stage takes (max_features): what lies beyond has no value, and is
no failure either. Attempted is what the metric's stage takes up within its cap, whatever came of it
and of the features' labels:

    concept_auroc           every feature, where the corpus names concepts
    s_cd, generated_auroc   features that sentences are written for, by their label of the one kind
                            that the study is probed by (concept_detection.label_kind)
    label_auroc             features that the LLM was to name, where such labels are scored
    steering_…              steered features, each judged label by itself (further_labels.py); of
                            one sign, where the study steers in that
    ablation_selectivity…   features ablated, and those that never fire strongly enough to be
    ablation_concept_…      those of them that have a corpus concept
    input_, output_score    features steered in the sign +
    label_logprob_gain      the same, each judged label by itself

Where a metric needs a label and the feature has none, there is no value. labels.status, of the kind
in question, decides what that counts for:

    failed          attempted: a value that might be there is missing
    none            n_without_label, apart: the LLM saw no theme, or had no evidence. That is an
                    answer and no failure, but how often it comes depends on the method
    not_attempted   neither: beyond labels.max_features, a cap like any other; so are kinds of label
                    that the study does not ask for

Features that the catalogue lacks are left out, as in what is compared.
"""

from __future__ import annotations

# Parameters by name: site, judged_labels, suffixes (what the names of each label's metrics end in).
ATTEMPTS_QUERY = """
WITH judged AS (
    SELECT unnest($judged_labels) AS judged_label, unnest($suffixes) AS suffix
),
of_label AS (
    SELECT fit, feature_id, kind AS label_kind, status = 'none' AS is_none FROM labels
    WHERE site = $site AND status != 'not_attempted'
),
scored AS (
    SELECT DISTINCT fit, feature_id FROM label_scores
    WHERE site = $site AND kind = 'input' AND method LIKE 'detection%'
          -- Rows from before 0.4.0 have neither; they are of this sort.
          AND coalesce(negatives, 'random') = 'random' AND NOT coalesce(is_shuffled, false)
),
steered AS (
    -- Features beyond steering.max_features have no row. Here not_attempted is: without a label.
    SELECT DISTINCT fit, feature_id, suffix, sign,
           CASE status WHEN 'not_attempted' THEN is_none ELSE false END AS is_none
    -- output, too, stands for output and output_minus.
    FROM steering_scores JOIN judged ON starts_with(label_kind, judged_label)
         LEFT JOIN of_label USING (fit, feature_id, label_kind)
    WHERE site = $site
),
-- is_none is NULL where the LLM was not asked for the label.
attempts AS (
    SELECT fit, feature_id,
           unnest(CASE source WHEN 'corpus' THEN ['concept_auroc']
                              ELSE ['s_cd', 'generated_auroc'] END) AS metric,
           CASE status WHEN 'no_label' THEN is_none ELSE false END AS is_none
    FROM concept_detection LEFT JOIN of_label USING (fit, feature_id, label_kind)
    WHERE site = $site AND status NOT IN ('not_attempted', 'not_applicable')
    UNION
    SELECT fit, feature_id, 'label_auroc', is_none
    FROM of_label SEMI JOIN scored USING (fit, feature_id) WHERE label_kind = 'input'
    UNION
    SELECT fit, feature_id,
           unnest(['steering_score', 'steering_gain', 'steering_gain_held_out',
                   'steering_gain_mean']) || suffix, is_none
    FROM steered
    UNION
    SELECT fit, feature_id,
           unnest(['steering_gain_plus', 'steering_gain_mean_plus']) || suffix, is_none
    FROM steered WHERE sign = '+'
    UNION
    SELECT fit, feature_id,
           unnest(['steering_gain_minus', 'steering_gain_mean_minus']) || suffix, is_none
    FROM steered WHERE sign = '-'
    UNION
    SELECT fit, feature_id, unnest(['ablation_selectivity', 'ablation_selectivity_null']), false
    FROM ablation_effects
    WHERE site = $site AND ablation = 'zero' AND NOT is_null AND status != 'not_measured'
    UNION
    SELECT fit, feature_id,
           unnest(['ablation_concept_selectivity', 'ablation_concept_selectivity_null']), false
    FROM ablation_effects
    WHERE site = $site AND ablation = 'zero' AND NOT is_null AND status != 'not_measured'
          AND concept IS NOT NULL
    UNION
    SELECT fit, feature_id, unnest(['input_score', 'output_score']), false
    FROM judge_free_scores
    WHERE site = $site AND sign = '+'
    UNION
    SELECT fit, feature_id, 'label_logprob_gain' || suffix,
           CASE WHEN label IS NULL THEN is_none ELSE false END
    FROM judge_free_scores JOIN judged ON starts_with(label_kind, judged_label)
         LEFT JOIN of_label USING (fit, feature_id, label_kind)
    WHERE site = $site AND sign = '+'
),
of_feature AS (
    -- Of two signs with a label each, one that there is, or that failed, makes an attempt.
    SELECT fit, feature_id, metric, bool_and(is_none) AS is_none
    FROM attempts WHERE is_none IS NOT NULL GROUP BY fit, feature_id, metric
)
SELECT fit, metric, count(*) FILTER (NOT is_none) AS n_attempted,
       count(*) FILTER (is_none) AS n_without_label
FROM of_feature SEMI JOIN (SELECT fit, feature_id FROM features WHERE site = $site) AS known
     USING (fit, feature_id)
GROUP BY fit, metric ORDER BY fit, metric
"""
