-- Of the updates that retention has taken: the newest accepted moments of each device, from which,
-- with what is still stored, the standardizer of every later round is merged again.
CREATE TABLE IF NOT EXISTS expired_moments (
    feature_schema TEXT NOT NULL,
    device_id TEXT NOT NULL,
    aggregation_round BIGINT NOT NULL,
    kafka_offset BIGINT NOT NULL,
    moments JSONB NOT NULL,
    PRIMARY KEY (feature_schema, device_id)
);

-- What a version or a round that is to be deleted may be referred to by.
CREATE INDEX IF NOT EXISTS federated_models_restoring
ON federated_models (restored_version) WHERE restored_version IS NOT NULL;

CREATE INDEX IF NOT EXISTS promotion_decisions_by_reference
ON promotion_decisions (reference_version);

CREATE INDEX IF NOT EXISTS promotion_decisions_by_round
ON promotion_decisions (aggregation_round);

-- A policy would drop updates before their moments are kept: `maintenance` drops these chunks.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
        AND current_setting('timescaledb.license', TRUE) = 'timescale' THEN
        PERFORM remove_retention_policy('local_models', if_exists => TRUE);
    END IF;
END
$$;
