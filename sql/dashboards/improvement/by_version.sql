WITH compared AS (
    SELECT
        version,
        coalesce(promoted_at, created_at) AS published_at,
        1 - global_loss / nullif(lag(global_loss) OVER by_version, 0) AS loss_reduction,
        global_accuracy - lag(global_accuracy) OVER by_version AS accuracy_gain
    FROM federated_models
    WHERE
        feature_schema = %(feature_schema)s
        AND metrics_rows > 0
        AND status IN ('promoted', 'rolled_back')
    WINDOW by_version AS (ORDER BY version)
)

SELECT
    version,
    loss_reduction,
    accuracy_gain
FROM compared
WHERE
    loss_reduction IS NOT NULL
    AND published_at BETWEEN %(time_from)s AND %(time_to)s
ORDER BY version;
