SELECT
    time_bucket(%(interval)s::INTERVAL, created_at) AS time,
    avg(rows_per_second) AS rows_per_second
FROM training_health
WHERE created_at BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
