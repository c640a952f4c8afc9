SELECT
    time_bucket(
        greatest(%(interval)s::INTERVAL, make_interval(secs => window_seconds)), window_start
    ) AS time,
    sum(anomaly_count)::DOUBLE PRECISION / nullif(sum(judged_rows), 0) AS by_the_model,
    sum(zscore_anomaly_count)::DOUBLE PRECISION / sum(row_count) AS by_the_z_score_rule,
    sum(probability_sum) / nullif(sum(scored_rows), 0)::DOUBLE PRECISION AS mean_probability
FROM stream_fleet_windows
WHERE
    window_seconds = nullif(%(window_seconds)s, '')::INTEGER
    AND window_start BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
