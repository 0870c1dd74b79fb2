"""The gold rows as one SQL query over the other stages' tables, for one site and fit.

A feature's steering score is that of steering_summaries (sign either, pooling best_kl): of the best
(sign, target KL), which stands beside it, with its gain over the unsteered base texts.
"""

from __future__ import annotations

# Parameters by name: site, fit, study, model, layer, site_kind, method, is_control.
FEATURES_QUERY = """
WITH part AS (
    SELECT $site AS site, $fit AS fit
),
fitted AS (
    SELECT unnest(coalesce(feature_ids, range(n_features)))::INTEGER AS feature_id,
           unnest(feature_names) AS feature_name
    FROM factorizations SEMI JOIN part USING (site, fit)
),
neurons AS (
    SELECT feature_id, count(*) AS n_neurons,
           list(neuron ORDER BY abs(weight) DESC, neuron)[:10] AS top_neurons
    FROM dictionary SEMI JOIN part USING (site, fit) GROUP BY feature_id
),
energy AS (
    SELECT feature_id, count(*) AS n_active_tokens, max(coefficient) AS max_coefficient,
           sum(coefficient::DOUBLE ^ 2) AS energy
    FROM coefficients SEMI JOIN part USING (site, fit) GROUP BY feature_id
),
peaks AS (
    SELECT feature_id, list(peak_token ORDER BY coefficient DESC, rank_in_kind) AS top_tokens
    FROM contexts SEMI JOIN part USING (site, fit) WHERE kind = 'top' GROUP BY feature_id
),
vocabulary AS (
    SELECT feature_id,
           list(token ORDER BY rank_in_sign) FILTER (sign = '+')[:10] AS promoted_tokens,
           list(token ORDER BY rank_in_sign) FILTER (sign = '-')[:10] AS suppressed_tokens
    FROM vocab_projection SEMI JOIN part USING (site, fit) GROUP BY feature_id
),
label_rows AS (
    SELECT feature_id,
           max(label) FILTER (kind = 'input') AS label,
           max(label) FILTER (kind = 'output') AS output_label,
           max(label) FILTER (kind = 'combined') AS combined_label,
           max(label) FILTER (kind = 'token_summary') AS token_summary,
           max(status) FILTER (kind = 'input') AS label_status,
           max(reason) FILTER (kind = 'input') AS label_reason
    FROM labels SEMI JOIN part USING (site, fit) GROUP BY feature_id
),
scores AS (
    SELECT feature_id, max(auroc) AS label_auroc, max(balanced_accuracy) AS label_balanced_accuracy
    FROM label_scores SEMI JOIN part USING (site, fit)
    WHERE kind = 'input' AND method LIKE 'detection%'
          -- Rows from before 0.4.0 have neither; they are of this sort.
          AND coalesce(negatives, 'random') = 'random' AND NOT coalesce(is_shuffled, false)
    GROUP BY feature_id
),
concepts AS (
    SELECT feature_id, concept, auroc AS concept_auroc, auroc_low AS concept_auroc_low,
           auroc_high AS concept_auroc_high
    FROM concept_detection SEMI JOIN part USING (site, fit) WHERE source = 'corpus'
),
parents AS (
    SELECT concept, min(parent_concept) AS parent_concept
    FROM documents WHERE study = $study AND concept IS NOT NULL GROUP BY concept
),
generated AS (
    SELECT feature_id, s_cd, status AS s_cd_status
    FROM concept_detection SEMI JOIN part USING (site, fit) WHERE source = 'generated'
),
best AS (
    SELECT feature_id, score AS steering_score, base_score AS steering_base_score,
           gain AS steering_gain, chosen_sign AS sign, target_kl_nats,
           n_texts AS n_steered_texts
    FROM steering_summaries SEMI JOIN part USING (site, fit)
    WHERE sign = 'either' AND pooling = 'best_kl' AND score IS NOT NULL
),
gains AS (
    SELECT feature_id, max_by(token_logprob_gain, target_kl_nats) AS token_logprob_gain
    FROM calibrations SEMI JOIN part USING (site, fit)
    WHERE sign = '+' AND token_logprob_gain IS NOT NULL GROUP BY feature_id
),
held_out AS (
    SELECT feature_id, score AS steering_score_held_out, gain AS steering_gain_held_out
    FROM steering_summaries SEMI JOIN part USING (site, fit)
    WHERE sign = 'either' AND pooling = 'best_kl_held_out'
),
judge_free AS (
    SELECT feature_id, max(input_score) AS input_score,
           max_by(output_score, target_kl_nats) FILTER (output_score IS NOT NULL) AS output_score,
           max_by(label_logprob_gain, target_kl_nats) FILTER (label_logprob_gain IS NOT NULL)
               AS label_logprob_gain
    FROM judge_free_scores SEMI JOIN part USING (site, fit) WHERE sign = '+' GROUP BY feature_id
),
ablated AS (
    SELECT feature_id, delta_cross_entropy
    FROM feature_faithfulness SEMI JOIN part USING (site, fit)
),
selective AS (
    SELECT feature_id, selectivity AS ablation_selectivity
    FROM ablation_effects SEMI JOIN part USING (site, fit)
    WHERE ablation = 'zero' AND NOT is_null
),
steering_status AS (
    SELECT feature_id, bool_or(status = 'failed') AS has_failed,
           min(reason) FILTER (status != 'ok') AS steering_reason
    FROM steering_scores SEMI JOIN part USING (site, fit) GROUP BY feature_id
)
SELECT
    feature_id, $study AS study, $model AS model, $layer::INTEGER AS layer,
    $site_kind AS site_kind, $method AS method, $is_control AS is_control,
    feature_name,
    energy / nullif(sum(energy) OVER (), 0) AS energy_share,
    coalesce(n_active_tokens, 0) AS n_active_tokens, max_coefficient,
    coalesce(n_neurons, 0) AS n_neurons, coalesce(top_neurons, []) AS top_neurons,
    delta_cross_entropy, ablation_selectivity,
    top_tokens, promoted_tokens, suppressed_tokens,
    label, output_label, combined_label, token_summary, label_status, label_reason, label_auroc,
    label_balanced_accuracy,
    concept, parent_concept, concept_auroc, concept_auroc_low, concept_auroc_high, s_cd,
    s_cd_status, steering_score, steering_base_score,
    steering_gain, best.sign AS steering_sign,
    best.target_kl_nats AS steering_target_kl_nats, calibrations.strength AS steering_strength,
    n_steered_texts, steering_score_held_out, steering_gain_held_out,
    gains.token_logprob_gain AS token_logprob_gain, input_score, output_score, label_logprob_gain,
    CASE
        WHEN label_status = 'failed' OR (steering_score IS NULL AND has_failed) THEN 'failed'
        WHEN steering_score IS NOT NULL THEN 'judged'
        WHEN label IS NOT NULL THEN 'labelled'
        ELSE 'not_judged'
    END AS status,
    CASE
        WHEN label_status = 'failed' THEN label_reason
        WHEN steering_score IS NULL THEN coalesce(label_reason, steering_reason)
    END AS reason
FROM fitted
LEFT JOIN neurons USING (feature_id)
LEFT JOIN energy USING (feature_id)
LEFT JOIN ablated USING (feature_id)
LEFT JOIN selective USING (feature_id)
LEFT JOIN peaks USING (feature_id)
LEFT JOIN vocabulary USING (feature_id)
LEFT JOIN label_rows USING (feature_id)
LEFT JOIN scores USING (feature_id)
LEFT JOIN concepts USING (feature_id)
LEFT JOIN parents USING (concept)
LEFT JOIN generated USING (feature_id)
LEFT JOIN best USING (feature_id)
LEFT JOIN gains USING (feature_id)
LEFT JOIN held_out USING (feature_id)
LEFT JOIN judge_free USING (feature_id)
LEFT JOIN steering_status USING (feature_id)
LEFT JOIN calibrations ON calibrations.site = $site AND calibrations.fit = $fit
    AND calibrations.feature_id = fitted.feature_id AND calibrations.sign = best.sign
    AND calibrations.target_kl_nats = best.target_kl_nats
ORDER BY feature_id
"""
