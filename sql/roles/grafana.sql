-- What dashboards may read, where there is a role for them; run again, it grants what is missing.
-- Views stand for evaluations and feedback, and of the outbox there is all but the messages.
DO $$
DECLARE
    readable CONSTANT TEXT [] := ARRAY[
        'aggregation_rounds',
        'anomalies',
        'batch_analysis_results',
        'data_quality_results',
        'device_samples',
        'device_status',
        'evaluation_runs',
        'federated_models',
        'local_models',
        'model_head',
        'passed_evaluations',
        'passed_feedback',
        'promotion_decisions',
        'stream_analysis_batches',
        'stream_analysis_results',
        'stream_fleet_windows',
        'training_deployments',
        'training_health',
        'tuning_decisions'
    ];
    name TEXT;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'grafana')
        OR to_regnamespace('flead_compat') IS NULL THEN
        RETURN;
    END IF;
    IF NOT has_schema_privilege('grafana', 'flead_compat', 'USAGE') THEN
        GRANT USAGE ON SCHEMA flead_compat TO grafana;
    END IF;
    FOREACH name IN ARRAY readable LOOP
        IF NOT has_table_privilege('grafana', to_regclass(name), 'SELECT') THEN
            EXECUTE format('GRANT SELECT ON %I TO grafana', name);
        END IF;
    END LOOP;
    IF NOT has_column_privilege('grafana', to_regclass('outbox'), 'topic', 'SELECT') THEN
        GRANT SELECT (id, topic, state, is_quarantined, created_at, published_at)
        ON outbox TO grafana;
    END IF;
END
$$;
