"""The gold rows as one SQL query over the other stages' tables, for one site and fit.

A feature's steering score is that of steering_summaries (sign either, pooling best_kl) by the first
label that the study has texts judged on (steering.judged_labels): of the best (sign, target KL),
which stands beside it, with its gain over the unsteered base texts; the other poolings give their
gains alone. Scores at one target KL are of the largest that was calibrated to, and NULL for a
feature that did not reach it: the largest reached would be another for each.
"""

from __future__ import annotations

# Parameters by name: site, fit, study, model, layer, site_kind, method, is_control, judged_label
# (the first of steering.judged_labels).
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
largest_coefficient AS (
    SELECT max(coefficient)::DOUBLE AS largest FROM coefficients SEMI JOIN part USING (site, fit)
),
energy AS (
    -- Squares in whole parts of the largest: integers add up to the same in any order.
    SELECT feature_id, count(*) AS n_active_tokens, max(coefficient) AS max_coefficient,
           sum(((coefficient::DOUBLE / nullif(largest, 0)) ^ 2 * 2.0 ^ 60)::BIGINT) AS energy
    FROM coefficients SEMI JOIN part USING (site, fit), largest_coefficient GROUP BY feature_id
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
    SELECT feature_id, s_cd, status AS s_cd_status, auroc AS generated_auroc
    FROM concept_detection SEMI JOIN part USING (site, fit) WHERE source = 'generated'
),
summaries AS (
    SELECT * FROM steering_summaries SEMI JOIN part USING (site, fit)
    -- Rows from before 0.6.0 have none.
    WHERE coalesce(label_kind, $judged_label) = $judged_label
),
best AS (
    SELECT feature_id, score AS steering_score, base_score AS steering_base_score,
           gain AS steering_gain, chosen_sign AS sign, target_kl_nats,
           n_texts AS n_steered_texts
    FROM summaries WHERE sign = 'either' AND pooling = 'best_kl' AND score IS NOT NULL
),
held_out AS (
    SELECT feature_id, score AS steering_score_held_out, gain AS steering_gain_held_out
    FROM summaries WHERE sign = 'either' AND pooling = 'best_kl_held_out'
),
other_gains AS (
    SELECT feature_id,
           max(gain) FILTER (pooling = 'best_kl' AND sign = '+') AS steering_gain_plus,
           max(gain) FILTER (pooling = 'best_kl' AND sign = '-') AS steering_gain_minus,
           max(gain) FILTER (pooling = 'mean_kl' AND sign = 'either') AS steering_gain_mean,
           max(gain) FILTER (pooling = 'mean_kl' AND sign = '+') AS steering_gain_mean_plus,
           max(gain) FILTER (pooling = 'mean_kl' AND sign = '-') AS steering_gain_mean_minus
    FROM summaries GROUP BY feature_id
),
gains AS (
    SELECT feature_id, token_logprob_gain
    FROM calibrations SEMI JOIN part USING (site, fit)
    WHERE sign = '+' QUALIFY target_kl_nats = max(target_kl_nats) OVER ()
),
judge_free_rows AS (
    SELECT * FROM judge_free_scores SEMI JOIN part USING (site, fit)
    WHERE sign = '+' QUALIFY target_kl_nats = max(target_kl_nats) OVER ()
),
judge_free AS (
    -- A row a kind of label that texts are judged on: the other scores are the same in each.
    SELECT feature_id, max(input_score) AS input_score, max(output_score) AS output_score,
           max(label_logprob_gain) FILTER (starts_with(label_kind, $judged_label))
               AS label_logprob_gain
    FROM judge_free_rows GROUP BY feature_id
),
ablated AS (
    SELECT feature_id, delta_cross_entropy
    FROM feature_faithfulness SEMI JOIN part USING (site, fit)
),
selective AS (
    SELECT feature_id, max(selectivity) FILTER (NOT is_null) AS ablation_selectivity,
           max(selectivity) FILTER (is_null) AS ablation_selectivity_null,
           max(concept_selectivity) FILTER (NOT is_null) AS ablation_concept_selectivity,
           max(concept_selectivity) FILTER (is_null) AS ablation_concept_selectivity_null
    FROM ablation_effects SEMI JOIN part USING (site, fit)
    WHERE ablation = 'zero' GROUP BY feature_id
),
steering_status AS (
    SELECT feature_id, bool_or(status = 'failed') AS has_failed,
           min(reason) FILTER (status != 'ok') AS steering_reason
    FROM steering_scores SEMI JOIN part USING (site, fit)
    -- output, too, stands for output and output_minus.
    WHERE starts_with(label_kind, $judged_label) GROUP BY feature_id
)
SELECT
    feature_id, $study AS study, $model AS model, $layer::INTEGER AS layer,
    $site_kind AS site_kind, $method AS method, $is_control AS is_control,
    feature_name,
    energy / nullif(sum(energy) OVER (), 0) AS energy_share,
    coalesce(n_active_tokens, 0) AS n_active_tokens, max_coefficient,
    coalesce(n_neurons, 0) AS n_neurons, coalesce(top_neurons, []) AS top_neurons,
    delta_cross_entropy, ablation_selectivity, ablation_selectivity_null,
    ablation_concept_selectivity, ablation_concept_selectivity_null,
    top_tokens, promoted_tokens, suppressed_tokens,
    label, output_label, combined_label, token_summary, label_status, label_reason, label_auroc,
    label_balanced_accuracy,
    concept, parent_concept, concept_auroc, concept_auroc_low, concept_auroc_high, s_cd,
    s_cd_status, generated_auroc, steering_score, steering_base_score,
    steering_gain, best.sign AS steering_sign,
    best.target_kl_nats AS steering_target_kl_nats, calibrations.strength AS steering_strength,
    n_steered_texts, steering_score_held_out, steering_gain_held_out,
    steering_gain_plus, steering_gain_minus,
    steering_gain_mean, steering_gain_mean_plus, steering_gain_mean_minus,
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
LEFT JOIN other_gains USING (feature_id)
LEFT JOIN judge_free USING (feature_id)
LEFT JOIN steering_status USING (feature_id)
LEFT JOIN calibrations ON calibrations.site = $site AND calibrations.fit = $fit
    AND calibrations.feature_id = fitted.feature_id AND calibrations.sign = best.sign
    AND calibrations.target_kl_nats = best.target_kl_nats
ORDER BY feature_id
"""
