SELECT
    time_bucket(%(interval)s::INTERVAL, coalesce(promoted_at, created_at)) AS time,
    format('revision %%s', hyperparameters_revision) AS metric,
    sum(metrics_log_loss_sum) / sum(metrics_rows)::DOUBLE PRECISION AS log_loss
FROM federated_models
WHERE
    feature_schema = %(feature_schema)s
    AND metrics_rows > 0
    AND status IN ('promoted', 'rolled_back')
    AND coalesce(promoted_at, created_at) BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1, 2
ORDER BY 1, 2;
