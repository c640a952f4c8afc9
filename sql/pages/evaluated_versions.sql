-- How the fleet's rows told versions apart in an evaluation.
SELECT
    model_version,
    samples,
    accuracy,
    precision,
    recall,
    roc_auc,
    log_loss
FROM model_evaluations
WHERE evaluation_run_id = %(run)s AND device_id = '*'
ORDER BY model_version
