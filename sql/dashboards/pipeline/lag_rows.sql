SELECT
    time_bucket(%(interval)s::INTERVAL, created_at) AS time,
    max(lag_rows) AS training_job,
    max(stream_lag_rows) AS stream_analysis
FROM training_health
WHERE created_at BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
