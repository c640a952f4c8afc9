SELECT
    completed_at AS time,
    extract(EPOCH FROM completed_at - opened_at)::DOUBLE PRECISION AS duration,
    extract(EPOCH FROM opened_at - lag(opened_at) OVER (ORDER BY round))::DOUBLE PRECISION
        AS since_the_round_before
FROM aggregation_rounds
WHERE completed_at BETWEEN %(time_from)s AND %(time_to)s
ORDER BY completed_at;
