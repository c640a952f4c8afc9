SELECT
    completed_at AS time,
    accepted,
    updates - accepted AS not_accepted,
    dead_letters
FROM aggregation_rounds
WHERE
    accepted IS NOT NULL
    AND completed_at BETWEEN %(time_from)s AND %(time_to)s
ORDER BY completed_at;
