-- The newest versions that evaluations have kept predictions of: the newest due one of each that
-- passed its quality checks.
SELECT DISTINCT due_versions[array_upper(due_versions, 1)] AS model_version
FROM evaluation_runs
WHERE quality_status = 'passed' AND rows_labelled > 0
ORDER BY model_version DESC
LIMIT 200;
