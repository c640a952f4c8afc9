-- Days whose analysis ended between the evaluation before a run and the run.
WITH run AS (
    SELECT
        *,
        coalesce(
            (
                SELECT max(earlier.evaluated_at) FROM evaluation_runs AS earlier
                WHERE earlier.evaluated_at < this.evaluated_at
            ),
            this.window_start
        ) AS since
    FROM evaluation_runs AS this WHERE this.evaluation_run_id = %(run)s
)

SELECT
    day.analysis_date::TEXT AS analysis_date,
    result.device_id,
    result.anomaly_rate,
    result.drift,
    (result.row_count - result.scored_rows)::DOUBLE PRECISION AS rows_not_scored,
    (result.row_count - result.rows_labelled)::DOUBLE PRECISION AS rows_without_label,
    (result.scored_rows - result.anomaly_count)::DOUBLE PRECISION AS rows_without_anomaly,
    (result.row_count - result.zscore_anomaly_count)::DOUBLE PRECISION
        AS rows_without_zscore_anomaly,
    (result.first_event_time AT TIME ZONE 'UTC')::DATE = day.analysis_date
    AND (result.last_event_time AT TIME ZONE 'UTC')::DATE = day.analysis_date
    AND result.first_event_time <= result.last_event_time AS is_of_its_day,
    (day.rows - sum(result.row_count) OVER (PARTITION BY day.analysis_date))::DOUBLE PRECISION
        AS rows_missing,
    (day.devices - count(result.device_id) OVER (PARTITION BY day.analysis_date))::DOUBLE PRECISION
        AS devices_missing,
    day.late_rows::DOUBLE PRECISION AS late_rows
FROM run
INNER JOIN analysis_days AS day
    ON day.state = 'done' AND day.analysed_at > run.since AND day.analysed_at <= run.evaluated_at
LEFT JOIN batch_analysis_results AS result ON day.analysis_date = result.analysis_date
ORDER BY day.analysis_date, result.device_id
