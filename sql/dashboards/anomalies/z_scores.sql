SELECT
    format('%%s to %%s', bin / 2::DOUBLE PRECISION, (bin + 1) / 2::DOUBLE PRECISION) AS z_score,
    count(*) AS anomalies
FROM (
    SELECT least(floor(2 * abs(z_score)), 19)::INTEGER AS bin
    FROM anomalies
    WHERE event_time BETWEEN %(time_from)s AND %(time_to)s
) AS binned
GROUP BY bin
ORDER BY bin;
