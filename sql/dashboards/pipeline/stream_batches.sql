SELECT
    time_bucket(%(interval)s::INTERVAL, committed_at) AS time,
    avg(seconds) AS mean_duration,
    max(seconds) AS longest
FROM stream_analysis_batches
WHERE committed_at BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
