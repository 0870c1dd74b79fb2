"""Of how many features each metric was attempted, as one SQL query over the stages, for one site.

A study caps how many features a stage takes (max_features): what lies beyond has no value, and is
no failure either. Attempted is what the metric's stage took up, whatever came of it:

    concept_auroc           every feature, where the corpus names concepts
    s_cd, generated_auroc   features that had sentences written for their label
    label_auroc             features that the LLM was to name, where such labels are scored
    steering_…              steered features that have a label to be judged by, of the first kind of
                            steering.judged_labels; of one sign, where the study steers in that
    ablation_selectivity…   features ablated, and those that never fire strongly enough to be
    input_, output_score    features steered in the sign +
    label_logprob_gain      those of them that have a label

A feature whose labels failed is an attempt of label_auroc alone: without a label the later stages
have nothing to take up. Features that the catalogue lacks are left out, as in what is compared.
"""

from __future__ import annotations

# Parameters by name: site, judged_label (the first of steering.judged_labels).
ATTEMPTS_QUERY = """
WITH scored AS (
    SELECT DISTINCT fit, feature_id FROM label_scores
    WHERE site = $site AND kind = 'input' AND method LIKE 'detection%'
          -- Rows from before 0.4.0 have neither; they are of this sort.
          AND coalesce(negatives, 'random') = 'random' AND NOT coalesce(is_shuffled, false)
),
steered AS (
    SELECT fit, feature_id, list(DISTINCT sign) AS signs
    -- output, too, stands for output and output_minus.
    FROM steering_scores WHERE site = $site AND starts_with(label_kind, $judged_label)
          AND status != 'not_attempted'
    GROUP BY fit, feature_id
),
attempts AS (
    SELECT fit, feature_id,
           unnest(CASE source WHEN 'corpus' THEN ['concept_auroc']
                              ELSE ['s_cd', 'generated_auroc'] END) AS metric
    FROM concept_detection
    WHERE site = $site AND status NOT IN ('not_attempted', 'not_applicable')
    UNION
    SELECT fit, feature_id, 'label_auroc' FROM labels SEMI JOIN scored USING (fit, feature_id)
    WHERE site = $site AND kind = 'input' AND status != 'not_attempted'
    UNION
    SELECT fit, feature_id,
           unnest(['steering_score', 'steering_gain', 'steering_gain_held_out',
                   'steering_gain_mean'])
    FROM steered
    UNION
    SELECT fit, feature_id, unnest(['steering_gain_plus', 'steering_gain_mean_plus'])
    FROM steered WHERE list_contains(signs, '+')
    UNION
    SELECT fit, feature_id, unnest(['steering_gain_minus', 'steering_gain_mean_minus'])
    FROM steered WHERE list_contains(signs, '-')
    UNION
    SELECT fit, feature_id, unnest(['ablation_selectivity', 'ablation_selectivity_null'])
    FROM ablation_effects
    WHERE site = $site AND ablation = 'zero' AND NOT is_null AND status != 'not_measured'
    UNION
    SELECT fit, feature_id, unnest(['input_score', 'output_score']) FROM judge_free_scores
    WHERE site = $site AND sign = '+'
    UNION
    SELECT fit, feature_id, 'label_logprob_gain' FROM judge_free_scores
    WHERE site = $site AND sign = '+' AND label IS NOT NULL
)
SELECT fit, metric, count(*) AS n_attempted
FROM attempts SEMI JOIN (SELECT fit, feature_id FROM features WHERE site = $site) AS known
     USING (fit, feature_id)
GROUP BY fit, metric ORDER BY fit, metric
"""
