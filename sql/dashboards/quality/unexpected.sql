SELECT
    time_bucket(%(interval)s::INTERVAL, created_at) AS time,
    suite AS metric,
    sum(unexpected_count)::DOUBLE PRECISION / nullif(sum(element_count), 0)::DOUBLE PRECISION
        AS unexpected
FROM data_quality_results
WHERE created_at BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1, 2
ORDER BY 1, 2;
