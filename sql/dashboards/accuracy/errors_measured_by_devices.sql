SELECT
    coalesce(promoted_at, created_at) AS time,
    metrics_fn::DOUBLE PRECISION / nullif(metrics_fn + metrics_tp, 0) AS missed_anomalies,
    metrics_fp::DOUBLE PRECISION / nullif(metrics_fp + metrics_tn, 0) AS false_alarms
FROM federated_models
WHERE
    feature_schema = %(feature_schema)s
    AND metrics_rows > 0
    AND coalesce(promoted_at, created_at) BETWEEN %(time_from)s AND %(time_to)s
ORDER BY time;
