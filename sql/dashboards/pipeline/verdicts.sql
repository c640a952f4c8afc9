-- The worst verdict of an interval.
SELECT
    time_bucket(%(interval)s::INTERVAL, created_at) AS time,
    (array_agg(
        verdict
        ORDER BY
            array_position(
                ARRAY['exhausted', 'breached', 'healing', 'deploying', 'healthy'], verdict
            )
    ))[1] AS verdict
FROM training_health
WHERE created_at BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
