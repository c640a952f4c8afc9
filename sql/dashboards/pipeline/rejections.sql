SELECT
    aggregation_rounds.completed_at AS time,
    reason.key AS metric,
    reason.value::BIGINT AS updates
FROM aggregation_rounds
CROSS JOIN LATERAL jsonb_each_text(aggregation_rounds.rejected) AS reason
WHERE aggregation_rounds.completed_at BETWEEN %(time_from)s AND %(time_to)s
ORDER BY aggregation_rounds.completed_at, reason.key;
