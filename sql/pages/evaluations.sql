-- The newest evaluations, with the rules that they broke when they were checked last.
SELECT
    run.evaluation_run_id,
    run.state,
    run.due_versions,
    run.window_start,
    run.window_end,
    run.rows,
    run.rows_labelled,
    run.devices,
    run.evaluated_at,
    run.planned_at,
    run.quality_status,
    run.quality_checked_at,
    found.rules,
    found.critical,
    found.warnings
FROM (
    SELECT * -- noqa: AM04
    FROM evaluation_runs
    ORDER BY planned_at DESC
    LIMIT %(max_rows)s
) AS run
LEFT JOIN LATERAL (
    SELECT
        count(*) AS rules,
        count(*) FILTER (WHERE NOT result.success AND result.severity = 'critical') AS critical,
        count(*) FILTER (WHERE NOT result.success AND result.severity = 'warning') AS warnings
    FROM data_quality_results AS result
    WHERE
        result.run_id = run.evaluation_run_id
        AND result.created_at = (
            SELECT max(latest.created_at) FROM data_quality_results AS latest
            WHERE latest.run_id = run.evaluation_run_id
        )
) AS found ON TRUE
ORDER BY run.planned_at DESC
