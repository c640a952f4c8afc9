-- What the newest check of a run has found, broken rules first.
SELECT
    suite,
    rule,
    expectation,
    severity,
    success,
    reason,
    element_count,
    unexpected_count,
    failing_examples,
    created_at
FROM data_quality_results
WHERE
    run_id = %(run)s
    AND created_at = (
        SELECT max(latest.created_at) FROM data_quality_results AS latest
        WHERE latest.run_id = %(run)s
    )
ORDER BY success ASC, severity ASC, suite ASC, id ASC
