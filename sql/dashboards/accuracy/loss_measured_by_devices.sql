SELECT
    coalesce(promoted_at, created_at) AS time,
    global_loss AS log_loss
FROM federated_models
WHERE
    feature_schema = %(feature_schema)s
    AND metrics_rows > 0
    AND coalesce(promoted_at, created_at) BETWEEN %(time_from)s AND %(time_to)s
ORDER BY time;
