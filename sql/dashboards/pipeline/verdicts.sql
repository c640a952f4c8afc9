SELECT
    created_at AS time,
    verdict
FROM training_health
WHERE created_at BETWEEN %(time_from)s AND %(time_to)s
ORDER BY created_at;
