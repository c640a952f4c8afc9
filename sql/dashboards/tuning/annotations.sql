SELECT
    coalesce(decided_at, created_at) AS time,
    format('Revision %%s %%s: %%s', revision, status, reason) AS text,
    status AS tags
FROM tuning_decisions
WHERE coalesce(decided_at, created_at) BETWEEN %(time_from)s AND %(time_to)s
ORDER BY time;
