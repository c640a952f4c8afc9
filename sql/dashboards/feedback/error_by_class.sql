SELECT
    time_bucket(%(interval)s::INTERVAL, event_time) AS time,
    avg(error) FILTER (WHERE actual = 1) AS anomalies,
    avg(error) FILTER (WHERE actual = 0) AS normal_rows
FROM passed_feedback
WHERE
    model_version = any(%(versions)s)
    AND event_time BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
