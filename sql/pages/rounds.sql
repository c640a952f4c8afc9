-- The newest rounds.
SELECT
    round,
    state,
    updates,
    accepted,
    dead_letters,
    rejected,
    version,
    promoted_version,
    dag_run_id,
    attempts,
    opened_at,
    completed_at,
    extract(EPOCH FROM completed_at - opened_at)::DOUBLE PRECISION AS seconds
FROM aggregation_rounds
ORDER BY round DESC
LIMIT %(max_rows)s
