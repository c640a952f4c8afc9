SELECT
    time_bucket(%(interval)s::INTERVAL, event_time) AS time,
    avg(error) AS mean_error,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY error) AS ninetieth_percentile
FROM passed_feedback
WHERE
    model_version = any(%(versions)s)
    AND event_time BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
