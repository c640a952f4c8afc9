SELECT
    version,
    global_loss AS log_loss,
    sum(metrics_log_loss_sum) OVER ten_versions
    / (sum(metrics_rows) OVER ten_versions)::DOUBLE PRECISION AS mean_of_ten_versions
FROM federated_models
WHERE
    feature_schema = %(feature_schema)s
    AND metrics_rows > 0
    AND status IN ('promoted', 'rolled_back')
    AND coalesce(promoted_at, created_at) BETWEEN %(time_from)s AND %(time_to)s
WINDOW ten_versions AS (ORDER BY version ROWS 9 PRECEDING)
ORDER BY version;
