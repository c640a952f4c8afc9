-- Both models on the same labelled rows, before either was trained on them; without updates whose
-- rejection speaks against their figures.
SELECT
    time_bucket(%(interval)s::INTERVAL, kafka_timestamp) AS time,
    sum((personalized_metrics ->> 'tp')::BIGINT + (personalized_metrics ->> 'tn')::BIGINT)
    ::DOUBLE PRECISION
    / nullif(sum((personalized_metrics ->> 'rows')::BIGINT), 0)::DOUBLE PRECISION AS personalized,
    sum((global_metrics ->> 'tp')::BIGINT + (global_metrics ->> 'tn')::BIGINT)::DOUBLE PRECISION
    / nullif(sum((global_metrics ->> 'rows')::BIGINT), 0)::DOUBLE PRECISION AS global_model
FROM local_models
WHERE
    device_id = %(device)s
    AND rows_labelled > 0
    AND coalesce(reject_reason, '') NOT IN (
        'unknown_schema', 'dimension', 'not_finite', 'implausible'
    )
    AND kafka_timestamp BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
