-- Predictions on a device's rows that passed their checks, the newest first.
SELECT
    model_version,
    event_time,
    prediction,
    actual,
    error,
    confidence
FROM passed_feedback
WHERE device_id = %(device)s
ORDER BY event_time DESC
LIMIT %(max_rows)s
