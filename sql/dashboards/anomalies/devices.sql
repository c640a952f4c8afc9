SELECT
    device_id,
    sum(zscore_anomaly_count)::BIGINT AS by_the_z_score_rule,
    sum(anomaly_count)::BIGINT AS by_the_model,
    sum(row_count)::BIGINT AS rows,
    sum(zscore_anomaly_count)::DOUBLE PRECISION / sum(row_count) AS zscore_anomaly_rate,
    max(window_start) FILTER (WHERE zscore_anomaly_count > 0) AS last_window
FROM stream_analysis_results
WHERE
    window_seconds = nullif(%(window_seconds)s, '')::INTEGER
    AND window_start BETWEEN %(time_from)s AND %(time_to)s
GROUP BY device_id
HAVING sum(zscore_anomaly_count) > 0
ORDER BY by_the_z_score_rule DESC, device_id ASC
LIMIT 50;
