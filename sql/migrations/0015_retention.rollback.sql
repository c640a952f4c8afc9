DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
        AND current_setting('timescaledb.license', TRUE) = 'timescale' THEN
        PERFORM add_retention_policy('local_models', INTERVAL '7 days', if_not_exists => TRUE);
    END IF;
END
$$;

DROP TABLE IF EXISTS expired_moments;

DROP INDEX IF EXISTS promotion_decisions_by_round;

DROP INDEX IF EXISTS promotion_decisions_by_reference;

DROP INDEX IF EXISTS federated_models_restoring;
