DROP VIEW IF EXISTS stream_windows;

ALTER TABLE stream_analysis_results DROP COLUMN IF EXISTS anomaly_count;

ALTER TABLE stream_analysis_results RENAME COLUMN zscore_anomaly_count TO anomaly_count;

CREATE VIEW stream_windows AS
SELECT
    window_start,
    window_seconds,
    device_id,
    max(model_version) AS model_version,
    sum(row_count)::BIGINT AS row_count,
    sum(anomaly_count)::BIGINT AS anomaly_count,
    sum(scored_rows)::BIGINT AS scored_rows,
    sum(probability_sum) / nullif(sum(scored_rows), 0) AS mean_probability,
    sum(rows_labelled)::BIGINT AS rows_labelled,
    (sum(correct) / nullif(sum(rows_labelled), 0))::DOUBLE PRECISION AS accuracy
FROM stream_analysis_results
GROUP BY window_start, window_seconds, device_id;
