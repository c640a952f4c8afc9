-- Evaluations of the last day that quality checks have quarantined.
SELECT count(*)::DOUBLE PRECISION AS value
FROM evaluation_runs
WHERE
    quality_status = 'quarantined'
    AND quality_checked_at >= now() - INTERVAL '1 day';
