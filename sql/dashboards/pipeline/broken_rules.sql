SELECT
    reason.broken ->> 'rule' AS rule,
    count(*) AS readings,
    max(reading.created_at) AS last_reading,
    (array_agg(reason.broken ->> 'value' ORDER BY reading.created_at DESC))[1] AS last_value,
    (array_agg(reason.broken ->> 'limit' ORDER BY reading.created_at DESC))[1] AS limit_then
FROM training_health AS reading
CROSS JOIN LATERAL jsonb_array_elements(reading.reasons) AS reason (broken)
WHERE reading.created_at BETWEEN %(time_from)s AND %(time_to)s
GROUP BY rule
ORDER BY last_reading DESC;
