-- Evaluations of global versions on a device's rows that passed their checks, the newest first.
SELECT
    model_version,
    window_end,
    samples,
    accuracy,
    log_loss,
    recall,
    precision
FROM passed_evaluations
WHERE device_id = %(device)s AND status = 'evaluated'
ORDER BY window_end DESC, model_version DESC
LIMIT %(max_rows)s
