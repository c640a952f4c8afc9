SELECT
    sum(row_count)::DOUBLE PRECISION AS rows,
    sum(anomaly_count)::DOUBLE PRECISION AS anomalies,
    sum(anomaly_count)::DOUBLE PRECISION
    / nullif(sum(scored_rows) FILTER (WHERE anomaly_count IS NOT NULL), 0) AS anomaly_rate,
    sum(zscore_anomaly_count)::DOUBLE PRECISION / sum(row_count) AS zscore_anomaly_rate,
    count(DISTINCT device_id) FILTER (WHERE zscore_anomaly_count > 0) AS devices_with_anomalies
FROM stream_analysis_results
WHERE
    window_seconds = nullif(%(window_seconds)s, '')::INTEGER
    AND window_start BETWEEN %(time_from)s AND %(time_to)s
HAVING count(*) > 0;
