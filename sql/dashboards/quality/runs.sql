SELECT
    time_bucket(%(interval)s::INTERVAL, evaluated_at) AS time,
    quality_status AS metric,
    count(*) AS evaluations
FROM evaluation_runs
WHERE
    state = 'evaluated'
    AND evaluated_at BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1, 2
ORDER BY 1, 2;
