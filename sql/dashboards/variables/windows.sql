-- The longest first: it has the fewest rows.
SELECT DISTINCT result.window_seconds
FROM stream_analysis_results AS result
WHERE
    result.window_start >= (
        SELECT max(newest.window_start) - INTERVAL '15 minutes'
        FROM stream_analysis_results AS newest
    )
ORDER BY result.window_seconds DESC;
