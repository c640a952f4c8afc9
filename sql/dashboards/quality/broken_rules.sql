SELECT
    created_at,
    severity,
    suite,
    rule,
    unexpected_count,
    element_count,
    run_id,
    reason,
    failing_examples ->> 0 AS example
FROM data_quality_results
WHERE
    NOT success
    AND created_at BETWEEN %(time_from)s AND %(time_to)s
ORDER BY created_at DESC, severity ASC
LIMIT 200;
