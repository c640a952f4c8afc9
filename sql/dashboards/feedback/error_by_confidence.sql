-- A confidence c claims an error of (1 - c) / 2.
SELECT
    format('%%s to %%s %%%%', 10 * bin, 10 * bin + 10) AS confidence,
    avg(error) AS mean_error,
    avg((1 - confidence) / 2) AS claimed_error
FROM (
    SELECT
        error,
        confidence,
        least(floor(10 * confidence), 9)::INTEGER AS bin
    FROM passed_feedback
    WHERE
        model_version = any(%(versions)s)
        AND event_time BETWEEN %(time_from)s AND %(time_to)s
) AS predictions
GROUP BY bin
ORDER BY bin;
