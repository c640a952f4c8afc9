-- `anomaly_count` becomes what it is in `batch_analysis_results`: rows that the model gives a
-- probability of at least a half. Before, it counted those that the z-score rule calls anomalous.
-- These counts keep their rows under their true name; how many the model called so then is null,
-- for the probabilities of single rows are not stored. No row is written: the table may be large.
DROP VIEW IF EXISTS stream_windows;

DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = 'stream_analysis_results'::regclass
            AND attname = 'zscore_anomaly_count' AND NOT attisdropped
    ) THEN
        ALTER TABLE stream_analysis_results RENAME COLUMN anomaly_count TO zscore_anomaly_count;
    END IF;
END
$$;

-- Rows with an anomaly by the model, null where it scored none, and before this was counted
ALTER TABLE stream_analysis_results
ADD COLUMN IF NOT EXISTS anomaly_count BIGINT;

-- A window as a whole, whichever versions scored its rows.
CREATE OR REPLACE VIEW stream_windows AS
SELECT
    window_start,
    window_seconds,
    device_id,
    max(model_version) AS model_version,
    sum(row_count)::BIGINT AS row_count,
    CASE
        WHEN bool_and(scored_rows = 0 OR anomaly_count IS NOT NULL)
            THEN sum(anomaly_count)::BIGINT
    END AS anomaly_count,
    sum(zscore_anomaly_count)::BIGINT AS zscore_anomaly_count,
    sum(scored_rows)::BIGINT AS scored_rows,
    sum(probability_sum) / nullif(sum(scored_rows), 0) AS mean_probability,
    sum(rows_labelled)::BIGINT AS rows_labelled,
    (sum(correct) / nullif(sum(rows_labelled), 0))::DOUBLE PRECISION AS accuracy
FROM stream_analysis_results
GROUP BY window_start, window_seconds, device_id;
