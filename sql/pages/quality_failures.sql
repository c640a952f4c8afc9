-- Rules that were broken lately, by evaluations and rounds, the newest first.
SELECT
    run_id,
    suite,
    rule,
    severity,
    reason,
    element_count,
    unexpected_count,
    failing_examples,
    created_at
FROM data_quality_results
WHERE NOT success
ORDER BY created_at DESC, severity ASC
LIMIT %(max_rows)s
