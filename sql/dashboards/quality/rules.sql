SELECT
    suite,
    rule,
    severity,
    count(*) AS checks,
    count(*) FILTER (WHERE NOT success) AS broken,
    max(created_at) FILTER (WHERE NOT success) AS last_broken
FROM data_quality_results
WHERE created_at BETWEEN %(time_from)s AND %(time_to)s
GROUP BY suite, rule, severity
ORDER BY broken DESC, suite ASC, rule ASC;
