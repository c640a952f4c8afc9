SELECT
    time_bucket(%(interval)s::INTERVAL, committed_at) AS time,
    sum(rows)::DOUBLE PRECISION AS valid_rows,
    sum(invalid)::DOUBLE PRECISION AS invalid_messages,
    sum(late_rows)::DOUBLE PRECISION AS late_rows
FROM stream_analysis_batches
WHERE committed_at BETWEEN %(time_from)s AND %(time_to)s
GROUP BY 1
ORDER BY 1;
