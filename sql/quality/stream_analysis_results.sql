-- Windows that the stream analysis wrote between the evaluation before a run and the run.
WITH run AS (
    SELECT
        this.*,
        coalesce(
            (
                SELECT max(earlier.evaluated_at) FROM evaluation_runs AS earlier
                WHERE earlier.evaluated_at < this.evaluated_at
            ),
            this.window_start
        ) AS since
    FROM evaluation_runs AS this
    WHERE this.evaluation_run_id = %(run)s
)

SELECT
    result.window_start::TEXT AS window_start,
    result.window_seconds,
    result.device_id,
    result.model_version,
    result.mean_probability,
    result.accuracy,
    result.anomaly_count::DOUBLE PRECISION AS anomaly_count,
    result.zscore_anomaly_count::DOUBLE PRECISION AS zscore_anomaly_count,
    (result.scored_rows - result.anomaly_count)::DOUBLE PRECISION AS rows_without_anomaly,
    (result.row_count - result.zscore_anomaly_count)::DOUBLE PRECISION
        AS rows_without_zscore_anomaly,
    (result.row_count - result.scored_rows)::DOUBLE PRECISION AS rows_not_scored,
    (result.scored_rows - result.rows_labelled)::DOUBLE PRECISION AS scored_rows_without_label,
    result.probability_sum NOT IN ('NaN', 'Infinity', '-Infinity') AS is_finite,
    -- Windows begin at multiples of their length since the epoch.
    mod(
        extract(EPOCH FROM result.window_start)::NUMERIC, result.window_seconds::NUMERIC
    )::DOUBLE PRECISION AS seconds_off_the_grid,
    result.model_version = 0 OR model.version IS NOT NULL AS has_its_version,
    extract(
        EPOCH FROM run.evaluated_at - max(result.created_at) OVER ()
    )::DOUBLE PRECISION AS seconds_since_the_newest
FROM run
INNER JOIN stream_analysis_results AS result
    ON run.since < result.created_at AND run.evaluated_at >= result.created_at
LEFT JOIN federated_models AS model ON result.model_version = model.version
ORDER BY result.window_start, result.window_seconds, result.device_id, result.model_version
