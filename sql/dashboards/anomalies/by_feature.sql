SELECT
    time_bucket(%(interval)s::INTERVAL, event_time) AS time,
    feature AS metric,
    count(*) AS anomalies
FROM anomalies
WHERE event_time BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1, 2
ORDER BY 1, 2;
