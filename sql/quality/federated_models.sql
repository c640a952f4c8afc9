-- Versions of an evaluation run, and all between its oldest and newest, whatever their status.
WITH run AS (
    SELECT
        *,
        (SELECT min(version) FROM unnest(versions) AS scored (version)) AS oldest,
        (SELECT max(version) FROM unnest(versions) AS scored (version)) AS newest
    FROM evaluation_runs
    WHERE evaluation_run_id = %(run)s
)

SELECT
    model.version,
    model.status,
    model.global_accuracy,
    model.global_loss,
    (
        model.weights || ARRAY[model.intercept, model.global_loss]
        && ARRAY['NaN', 'Infinity', '-Infinity']::DOUBLE PRECISION[]
    ) IS FALSE AS is_finite,
    (model.version - lag(model.version) OVER (ORDER BY model.version) - 1)::DOUBLE PRECISION
        AS versions_missing_before,
    model.parent_version = 0 OR EXISTS (
        SELECT FROM federated_models AS parent
        WHERE parent.version = model.parent_version AND parent.feature_schema = model.feature_schema
    ) AS has_its_parent,
    (model.status IN ('promoted', 'rolled_back')) = (model.promoted_at IS NOT NULL)
        AS has_its_time_of_promotion,
    -- Value, z-score, rolling mean and rolling deviation of each feature
    (cardinality(model.weights) - 4 * cardinality(model.feature_names))::DOUBLE PRECISION
        AS dimension_gap,
    (
        model.metrics_rows
        - model.metrics_tp - model.metrics_fp - model.metrics_tn - model.metrics_fn
    )::DOUBLE PRECISION AS metrics_rows_gap,
    (model.num_updates - model.num_devices)::DOUBLE PRECISION AS updates_beyond_devices,
    (opened.accepted - model.num_updates)::DOUBLE PRECISION AS accepted_gap,
    extract(
        EPOCH FROM model.created_at - lag(model.created_at) OVER (ORDER BY model.version)
    )::DOUBLE PRECISION AS seconds_after_the_one_before
FROM run
INNER JOIN federated_models AS model ON model.version BETWEEN run.oldest AND run.newest
LEFT JOIN aggregation_rounds AS opened ON model.aggregation_round = opened.round
ORDER BY model.version
