-- The daily analysis: by the global model, and by the model that a date was first analysed with.
SELECT
    analysis_date::TIMESTAMP AT TIME ZONE 'UTC' AS time,
    sum(anomaly_count)::DOUBLE PRECISION / nullif(sum(scored_rows), 0) AS by_the_model,
    sum(reference_anomaly_count)::DOUBLE PRECISION / nullif(sum(row_count), 0)
        AS by_the_reference_model,
    sum(zscore_anomaly_count)::DOUBLE PRECISION / nullif(sum(row_count), 0) AS by_the_z_score_rule
FROM batch_analysis_results
WHERE
    analysis_date BETWEEN %(time_from)s::TIMESTAMPTZ::DATE AND %(time_to)s::TIMESTAMPTZ::DATE
GROUP BY analysis_date
ORDER BY analysis_date;
