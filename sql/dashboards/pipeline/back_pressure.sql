SELECT
    time_bucket(%(interval)s::INTERVAL, created_at) AS time,
    max(back_pressure_ratio) AS back_pressure
FROM training_health
WHERE created_at BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
