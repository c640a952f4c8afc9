-- Each point is a version, at the time of its publication, as devices measured it before training.
SELECT
    coalesce(promoted_at, created_at) AS time,
    global_accuracy AS accuracy,
    greatest(metrics_tp + metrics_fn, metrics_tn + metrics_fp)::DOUBLE PRECISION
    / metrics_rows AS always_the_more_frequent_class
FROM federated_models
WHERE
    feature_schema = %(feature_schema)s
    AND metrics_rows > 0
    AND coalesce(promoted_at, created_at) BETWEEN %(time_from)s AND %(time_to)s
ORDER BY time;
