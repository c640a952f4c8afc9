SELECT
    device_id,
    sum(anomaly_count)::BIGINT AS anomalies,
    sum(row_count)::BIGINT AS rows,
    sum(anomaly_count)::DOUBLE PRECISION / sum(row_count) AS anomaly_rate,
    max(window_start) FILTER (WHERE anomaly_count > 0) AS last_window
FROM stream_analysis_results
WHERE
    window_seconds = nullif(%(window_seconds)s, '')::INTEGER
    AND window_start BETWEEN %(time_from)s AND %(time_to)s
GROUP BY device_id
HAVING sum(anomaly_count) > 0
ORDER BY anomalies DESC, device_id ASC
LIMIT 50;
