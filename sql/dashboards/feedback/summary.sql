SELECT
    count(*) AS predictions,
    count(DISTINCT device_id) AS devices,
    avg(error) AS mean_error,
    avg((error < 0.5)::INTEGER)::DOUBLE PRECISION AS right_side,
    avg((error >= 0.5 AND confidence >= 0.8)::INTEGER)::DOUBLE PRECISION AS confidently_wrong
FROM passed_feedback
WHERE
    model_version = any(%(versions)s)
    AND event_time BETWEEN %(time_from)s AND %(time_to)s
HAVING count(*) > 0;
