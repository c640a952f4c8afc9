-- Annotations: what was taken back or turned down.
SELECT
    decision.decided_at AS time,
    format('Version %%s %%s: %%s', decision.version, decision.decision, decision.reason) AS text,
    decision.decision AS tags
FROM promotion_decisions AS decision
INNER JOIN federated_models AS model ON decision.version = model.version
WHERE
    decision.decision <> 'promoted'
    AND model.feature_schema = %(feature_schema)s
    AND decision.decided_at BETWEEN %(time_from)s AND %(time_to)s
ORDER BY time;
