SELECT
    time_bucket(%(interval)s::INTERVAL, created_at) AS time,
    suite AS metric,
    avg(success::INTEGER)::DOUBLE PRECISION AS rules_kept
FROM data_quality_results
WHERE created_at BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1, 2
ORDER BY 1, 2;
