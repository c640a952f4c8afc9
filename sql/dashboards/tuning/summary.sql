SELECT
    count(*) FILTER (WHERE status IN ('proposed', 'trying', 'awaiting_approval')) AS in_flight,
    count(*) FILTER (WHERE status = 'awaiting_approval') AS awaiting_approval,
    count(*) FILTER (WHERE status = 'adopted') AS adopted,
    count(*) FILTER (WHERE status = 'kept') AS kept,
    count(*) FILTER (WHERE status = 'reverted') AS reverted,
    count(*) FILTER (WHERE status IN ('rejected', 'expired')) AS turned_down
FROM tuning_decisions
WHERE
    created_at BETWEEN %(time_from)s AND %(time_to)s
    OR settled_at IS NULL;
