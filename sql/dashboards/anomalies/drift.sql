SELECT
    analysis_date::TIMESTAMP AT TIME ZONE 'UTC' AS time,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY drift) AS median_device,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY drift) AS ninety_fifth_percentile,
    max(drift) AS largest
FROM batch_analysis_results
WHERE
    drift IS NOT NULL
    AND analysis_date BETWEEN %(time_from)s::TIMESTAMPTZ::DATE AND %(time_to)s::TIMESTAMPTZ::DATE
GROUP BY analysis_date
ORDER BY analysis_date;
