-- Every update that a round read, with what became of it. Columns are named as the fields of the
-- message; its status is training_status here, because status is the judgement of the round.
CREATE TABLE IF NOT EXISTS local_models (
    kafka_topic TEXT NOT NULL,
    kafka_partition INTEGER NOT NULL,
    kafka_offset BIGINT NOT NULL,
    kafka_timestamp TIMESTAMP WITH TIME ZONE NOT NULL,
    aggregation_round BIGINT NOT NULL REFERENCES aggregation_rounds (round),
    status TEXT NOT NULL DEFAULT 'pending'
    CHECK (status IN ('pending', 'accepted', 'rejected', 'superseded')),
    reject_reason TEXT,
    aggregation_weight DOUBLE PRECISION,
    device_id TEXT NOT NULL,
    model_version BIGINT NOT NULL,
    base_version BIGINT NOT NULL,
    feature_schema TEXT NOT NULL,
    trained BOOLEAN NOT NULL,
    training_status TEXT NOT NULL,
    samples_processed BIGINT NOT NULL,
    weights DOUBLE PRECISION[],
    intercept DOUBLE PRECISION,
    -- {"count": [...], "mean": [...], "m2": [...]}; jsonb keeps every digit of a double
    moments JSONB NOT NULL,
    global_metrics JSONB,
    candidate_metrics JSONB,
    personalized_metrics JSONB,
    accuracy DOUBLE PRECISION,
    rows BIGINT NOT NULL,
    rows_labelled BIGINT NOT NULL,
    rows_pseudo_labelled BIGINT NOT NULL,
    label_source TEXT NOT NULL,
    input_partition BIGINT NOT NULL,
    first_offset BIGINT NOT NULL,
    last_offset BIGINT NOT NULL,
    offset_sum NUMERIC NOT NULL,
    window_start TIMESTAMP WITH TIME ZONE NOT NULL,
    window_end TIMESTAMP WITH TIME ZONE NOT NULL,
    closed_by TEXT NOT NULL,
    learning_rate DOUBLE PRECISION NOT NULL,
    hyperparameters_revision BIGINT NOT NULL,
    trial TEXT,
    timestamp TIMESTAMP WITH TIME ZONE NOT NULL,
    -- TimescaleDB wants the time in every unique index.
    PRIMARY KEY (kafka_topic, kafka_partition, kafka_offset, kafka_timestamp),
    CHECK ((status = 'rejected') = (reject_reason IS NOT NULL))
);

-- A full fleet writes 3.5 million updates a day: chunks of six hours, kept as long as the topic.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        PERFORM create_hypertable(
            'local_models', 'kafka_timestamp',
            chunk_time_interval => INTERVAL '6 hours', if_not_exists => TRUE
        );
        -- The Apache edition of TimescaleDB has hypertables, but no compression and no policies.
        IF current_setting('timescaledb.license', TRUE) = 'timescale' THEN
            ALTER TABLE local_models SET (
                timescaledb.compress,
                timescaledb.compress_segmentby = 'aggregation_round',
                timescaledb.compress_orderby = 'kafka_partition, kafka_offset'
            );
            PERFORM add_compression_policy('local_models', INTERVAL '1 day', if_not_exists => TRUE);
            PERFORM add_retention_policy('local_models', INTERVAL '7 days', if_not_exists => TRUE);
        END IF;
    END IF;
END
$$;

CREATE INDEX IF NOT EXISTS local_models_by_round
ON local_models (aggregation_round, kafka_partition, kafka_offset);

CREATE INDEX IF NOT EXISTS local_models_by_device ON local_models (device_id, kafka_timestamp DESC);

-- The newest accepted moments of each device: what the fleet's standardizer is merged from.
CREATE TABLE IF NOT EXISTS device_moments (
    feature_schema TEXT NOT NULL,
    device_id TEXT NOT NULL,
    aggregation_round BIGINT NOT NULL REFERENCES aggregation_rounds (round),
    kafka_partition INTEGER NOT NULL,
    kafka_offset BIGINT NOT NULL,
    kafka_timestamp TIMESTAMP WITH TIME ZONE NOT NULL,
    moments JSONB NOT NULL,
    PRIMARY KEY (feature_schema, device_id)
);
