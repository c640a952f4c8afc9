SELECT
    decision.decided_at,
    decision.version,
    decision.reference_version,
    decision.decision,
    decision.reason,
    decision.mean_difference,
    decision.p_value,
    decision.devices,
    decision.rows AS labelled_rows,
    decision.decided_by
FROM promotion_decisions AS decision
INNER JOIN federated_models AS model ON decision.version = model.version
WHERE
    model.feature_schema = %(feature_schema)s
    AND decision.decided_at BETWEEN %(time_from)s AND %(time_to)s
ORDER BY decision.decided_at DESC
LIMIT 500;
