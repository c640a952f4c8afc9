-- Each promoted version against the promoted version before it. Losses are compared by their
-- quotient, so a fall and the rise that undoes it make no change; one of nothing has no quotient.
WITH measured AS (
    SELECT
        version,
        coalesce(promoted_at, created_at) AS published_at,
        global_accuracy,
        global_loss,
        -- Quotients of these have a number.
        CASE WHEN global_loss BETWEEN 1e-150 AND 1e150 THEN ln(global_loss) END AS logarithm
    FROM federated_models
    WHERE
        feature_schema = %(feature_schema)s
        AND metrics_rows > 0
        AND status IN ('promoted', 'rolled_back')
),

compared AS (
    SELECT
        published_at,
        global_accuracy - lag(global_accuracy) OVER by_version AS accuracy_gain,
        (global_loss < lag(global_loss) OVER by_version)::INTEGER AS is_improved,
        logarithm - lag(logarithm) OVER by_version AS change
    FROM measured
    WINDOW by_version AS (ORDER BY version)
)

SELECT
    count(is_improved) AS versions,
    avg(is_improved)::DOUBLE PRECISION AS improved,
    1 - exp(avg(change)) AS mean_loss_reduction,
    avg(accuracy_gain) AS mean_accuracy_gain
FROM compared
WHERE
    is_improved IS NOT NULL
    AND published_at BETWEEN %(time_from)s AND %(time_to)s
HAVING count(*) > 0;
