-- The newest day that was analysed.
SELECT
    analysis_date,
    state,
    rows,
    devices,
    late_rows,
    needs_rerun,
    analysed_at
FROM analysis_days
ORDER BY analysis_date DESC
LIMIT 1
