SELECT DISTINCT window_seconds
FROM stream_analysis_results
WHERE window_start >= now() - INTERVAL '1 day'
ORDER BY window_seconds;
