"""What the rows of each fit of a site that stand now cost, as one SQL query, for one site.

All of it is of the rows that the lake holds, so what was made, replaced and thrown away is not in
it; the bill of everything ever run is the sum of `run_ledger.usd`.

    fit_seconds  the factorization's own time (factorizations.seconds), of a fit from a cold start:
                 one that went on from an earlier fit took less than a whole one would
    usd          price, by the study's prices, of each distinct call behind the fit's rows of
                 llm_calls; a call that two fits share counts for both, whichever asked first
    seconds      of every asset of the fit, wall time from the last run that made everything by
                 itself to the one that wrote what stands. Failed runs on the way are in it, since
                 later ones take over what they paid for

A run made everything by itself if it ran no model and asked no LLM (then there is nothing to take
over), or if no row is as it was before and the cache answered no call. Where there is no such run,
all runs are summed, if the first found nothing there; otherwise seconds are NULL. Rows that were
made again and came out equal, which the ledger can't tell from rows taken over, count twice, so
seconds are rather too many than too few.
"""

from __future__ import annotations

# Parameter by name: site. Partitions of fits are named "site | fit" (recipe.partition_text).
COSTS_QUERY = """
WITH fitted AS (
    SELECT fit, coalesce(start, 'cold') AS start, seconds FROM factorizations WHERE site = $site
),
considered AS (
    SELECT substr("partition", length($site) + 4) AS fit, *,
           row_number() OVER history = 1 AND fingerprint_before IS NULL AS begins_with_nothing,
           count(*) FILTER (decision = 'computed') OVER (
               history ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
           ) AS n_computed_before
    FROM run_ledger
    WHERE starts_with("partition", $site || ' | ')
    WINDOW history AS (PARTITION BY asset, "partition" ORDER BY considered_at)
),
runs AS (
    SELECT considered.*,
           decision = 'computed'
           -- Rows that were gone and are put back were made by an earlier run.
           AND considered.fingerprint_before IS DISTINCT FROM considered.fingerprint
           AND (coalesce(forward_tokens, llm_calls_made, llm_calls_reused) IS NULL
                OR (rows_reused = 0 AND coalesce(llm_calls_reused, 0) = 0))
           AND (asset != 'factorization' OR coalesce(fitted.start, 'cold') = 'cold') AS made_all
    FROM considered LEFT JOIN fitted USING (fit)
),
spans AS (
    SELECT fit, asset, max(n_computed_before) FILTER (decision = 'computed') AS last_run,
           coalesce(max(n_computed_before) FILTER (made_all),
                    CASE WHEN bool_or(begins_with_nothing) THEN 0 END) AS first_run
    FROM runs GROUP BY fit, asset
),
of_assets AS (
    SELECT fit, asset, first_run IS NOT NULL AS is_known,
           sum(seconds) FILTER (
               decision IN ('computed', 'failed', 'over_budget')
               AND n_computed_before BETWEEN first_run AND last_run
           ) AS seconds
    FROM runs JOIN spans USING (fit, asset)
    WHERE last_run IS NOT NULL
    GROUP BY fit, asset, first_run
),
times AS (
    SELECT fit, CASE WHEN bool_and(is_known) THEN sum(seconds) END AS seconds,
           string_agg(asset, ', ' ORDER BY asset) FILTER (NOT is_known) AS unknown
    FROM of_assets GROUP BY fit
),
calls AS (
    SELECT fit, request_hash,
           -- Rows from before 0.7.0 have the price of calls made in the run alone.
           max(coalesce(usd_of_answer, CASE WHEN NOT was_reused THEN usd END)) AS usd
    FROM llm_calls
    -- A call without an answer has no price.
    WHERE site = $site AND (status = 'ok' OR reply IS NOT NULL)
    GROUP BY fit, request_hash
),
prices AS (
    SELECT fit, CASE WHEN count(*) = count(usd) THEN sum(usd) END AS usd,
           count(*) - count(usd) AS n_unknown
    FROM calls GROUP BY fit
)
SELECT fit,
       CASE WHEN fitted.start = 'cold' THEN fitted.seconds END AS fit_seconds,
       CASE WHEN fitted.start != 'cold'
            THEN 'the fit went on from an earlier one (start ' || fitted.start || ')'
       END AS fit_seconds_reason,
       times.seconds AS seconds,
       'rows of ' || times.unknown || ' were taken over from runs that the ledger lacks'
           AS seconds_reason,
       CASE WHEN prices.fit IS NULL THEN 0.0 ELSE prices.usd END AS usd,
       CASE WHEN prices.n_unknown > 0
            THEN 'the price of ' || prices.n_unknown || ' calls in llm_calls is not known'
       END AS usd_reason
FROM times LEFT JOIN prices USING (fit) LEFT JOIN fitted USING (fit)
ORDER BY fit
"""
