SELECT
    time_bucket(%(interval)s::INTERVAL, coalesce(promoted_at, created_at)) AS time,
    sum(metrics_fn)::DOUBLE PRECISION
    / nullif(sum(metrics_fn + metrics_tp), 0)::DOUBLE PRECISION AS missed_anomalies,
    sum(metrics_fp)::DOUBLE PRECISION
    / nullif(sum(metrics_fp + metrics_tn), 0)::DOUBLE PRECISION AS false_alarms
FROM federated_models
WHERE
    feature_schema = %(feature_schema)s
    AND metrics_rows > 0
    AND status IN ('promoted', 'rolled_back')
    AND coalesce(promoted_at, created_at) BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
