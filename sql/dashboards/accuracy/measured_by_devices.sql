-- Versions by the time of their publication, as devices measured them before training.
SELECT
    time_bucket(%(interval)s::INTERVAL, coalesce(promoted_at, created_at)) AS time,
    sum(metrics_tp + metrics_tn)::DOUBLE PRECISION
    / sum(metrics_rows)::DOUBLE PRECISION AS accuracy,
    sum(greatest(metrics_tp + metrics_fn, metrics_tn + metrics_fp))::DOUBLE PRECISION
    / sum(metrics_rows)::DOUBLE PRECISION AS always_the_more_frequent_class
FROM federated_models
WHERE
    feature_schema = %(feature_schema)s
    AND metrics_rows > 0
    AND status IN ('promoted', 'rolled_back')
    AND coalesce(promoted_at, created_at) BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
