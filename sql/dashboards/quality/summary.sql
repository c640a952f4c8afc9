SELECT
    count(*) FILTER (WHERE quality_status = 'passed') AS passed,
    count(*) FILTER (WHERE quality_status = 'quarantined') AS quarantined,
    count(*) FILTER (WHERE quality_status = 'pending') AS unchecked,
    extract(EPOCH FROM avg(quality_checked_at - evaluated_at))::DOUBLE PRECISION AS mean_wait
FROM evaluation_runs
WHERE
    state = 'evaluated'
    AND evaluated_at BETWEEN %(time_from)s AND %(time_to)s
HAVING count(*) > 0;
