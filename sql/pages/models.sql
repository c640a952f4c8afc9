-- One page of the versions, the newest first, with what was decided on each last.
SELECT
    model.version,
    model.status,
    model.parent_version,
    model.restored_version,
    model.aggregation_round,
    model.feature_schema,
    model.num_devices,
    model.num_updates,
    model.metrics_rows,
    model.global_accuracy,
    model.global_loss,
    model.created_at,
    model.promoted_at,
    decision.reason,
    decision.decided_by,
    decision.rows AS decided_rows,
    decision.mean_difference,
    decision.p_value,
    newest.version AS newest_head,
    head.version IS NOT NULL AS is_head
FROM (
    SELECT * -- noqa: AM04
    FROM federated_models
    ORDER BY version DESC
    LIMIT %(max_rows)s OFFSET %(first_row)s
) AS model
LEFT JOIN model_head AS head ON model.version = head.version
LEFT JOIN model_head AS newest ON model.feature_schema = newest.feature_schema
LEFT JOIN LATERAL (
    SELECT
        made.reason,
        made.decided_by,
        made.rows,
        made.mean_difference,
        made.p_value
    FROM promotion_decisions AS made
    WHERE made.version = model.version
    ORDER BY made.id DESC
    LIMIT 1
) AS decision ON TRUE
ORDER BY model.version DESC
