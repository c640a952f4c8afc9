-- Evaluations with what became of their feedback: only that of passed ones is drawn here.
SELECT
    evaluated_at,
    evaluation_run_id,
    quality_status,
    due_versions[array_upper(due_versions, 1)] AS newest_version,
    cardinality(versions) AS versions,
    rows_labelled AS labelled_rows,
    devices,
    quality_checked_at
FROM evaluation_runs
WHERE
    state = 'evaluated'
    AND evaluated_at BETWEEN %(time_from)s AND %(time_to)s
ORDER BY evaluated_at DESC
LIMIT 100;
