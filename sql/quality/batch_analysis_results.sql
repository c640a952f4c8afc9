-- Days whose analysis ended between the evaluation before a run and the run.
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
    analysed.analysis_date::TEXT AS analysis_date,
    result.device_id,
    result.anomaly_rate,
    result.drift,
    analysed.late_rows::DOUBLE PRECISION AS late_rows,
    (result.row_count - result.scored_rows)::DOUBLE PRECISION AS rows_not_scored,
    (result.row_count - result.rows_labelled)::DOUBLE PRECISION AS rows_without_label,
    (result.scored_rows - result.anomaly_count)::DOUBLE PRECISION AS rows_without_anomaly,
    (result.row_count - result.zscore_anomaly_count)::DOUBLE PRECISION
        AS rows_without_zscore_anomaly,
    (result.first_event_time AT TIME ZONE 'UTC')::DATE = analysed.analysis_date
    AND (result.last_event_time AT TIME ZONE 'UTC')::DATE = analysed.analysis_date
    AND result.first_event_time <= result.last_event_time AS is_of_its_day,
    (
        analysed.rows - sum(result.row_count) OVER (PARTITION BY analysed.analysis_date)
    )::DOUBLE PRECISION
        AS rows_missing,
    (
        analysed.devices - count(result.device_id) OVER (PARTITION BY analysed.analysis_date)
    )::DOUBLE PRECISION
        AS devices_missing
FROM run
INNER JOIN analysis_days AS analysed
    ON
        analysed.state = 'done'
        AND run.since < analysed.analysed_at
        AND run.evaluated_at >= analysed.analysed_at
LEFT JOIN batch_analysis_results AS result ON analysed.analysis_date = result.analysis_date
ORDER BY analysed.analysis_date, result.device_id
