-- Evaluations: which versions were scored on which rows, and how they did.
CREATE TABLE IF NOT EXISTS evaluation_runs (
    evaluation_run_id TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('planned', 'evaluated')),
    dag_run_id TEXT,
    feature_schema TEXT NOT NULL,
    due_versions BIGINT[] NOT NULL,
    -- The due ones and their parents
    versions BIGINT[] NOT NULL,
    -- {"partition": offset of edge-iiot-stream}; the window is from start to before end, the rows
    -- from warm_up on give the devices the history that their inputs need.
    warm_up_offsets JSONB NOT NULL,
    start_offsets JSONB NOT NULL,
    end_offsets JSONB NOT NULL,
    window_start TIMESTAMP WITH TIME ZONE,
    window_end TIMESTAMP WITH TIME ZONE,
    rows BIGINT,
    rows_labelled BIGINT,
    devices BIGINT,
    -- Devices of which fewer rows were read before the window than their inputs look back on.
    devices_short_of_history BIGINT,
    planned_at TIMESTAMP WITH TIME ZONE NOT NULL,
    evaluated_at TIMESTAMP WITH TIME ZONE,
    CHECK ((state = 'evaluated') = (evaluated_at IS NOT NULL))
);

-- The one run that is unfinished, if any, is resumed with its offsets.
CREATE UNIQUE INDEX IF NOT EXISTS evaluation_runs_one_planned
ON evaluation_runs ((TRUE)) WHERE state = 'planned';

CREATE TABLE IF NOT EXISTS model_evaluations (
    model_version BIGINT NOT NULL,
    -- Smallest and largest timestamp in Kafka of the window's rows, the same for all devices.
    window_start TIMESTAMP WITH TIME ZONE NOT NULL,
    window_end TIMESTAMP WITH TIME ZONE NOT NULL,
    -- '*' is the fleet
    device_id TEXT NOT NULL,
    -- Null for a version that was not evaluated
    evaluation_run_id TEXT,
    status TEXT NOT NULL CHECK (status IN ('evaluated', 'not_evaluated')),
    reason TEXT,
    quality_status TEXT NOT NULL DEFAULT 'pending'
    CHECK (quality_status IN ('pending', 'passed', 'quarantined')),
    evaluation_timestamp TIMESTAMP WITH TIME ZONE NOT NULL,
    rows BIGINT NOT NULL,
    -- Rows with a label: all figures are over these.
    samples BIGINT NOT NULL,
    tp BIGINT NOT NULL,
    fp BIGINT NOT NULL,
    tn BIGINT NOT NULL,
    fn BIGINT NOT NULL,
    log_loss_sum DOUBLE PRECISION NOT NULL,
    brier_sum DOUBLE PRECISION NOT NULL,
    accuracy DOUBLE PRECISION,
    precision DOUBLE PRECISION,
    recall DOUBLE PRECISION,
    f1 DOUBLE PRECISION,
    roc_auc DOUBLE PRECISION,
    log_loss DOUBLE PRECISION,
    brier DOUBLE PRECISION,
    -- {"count": [...], "probability_sum": [...], "positives": [...]}, of ten bins of probability
    calibration JSONB,
    -- {"always_normal": {...}, "zscore": {...}}: figures of two rules on the same rows
    baselines JSONB,
    start_offsets JSONB,
    end_offsets JSONB,
    PRIMARY KEY (model_version, window_start, window_end, device_id),
    CHECK ((status = 'evaluated') = (reason IS NULL)),
    CHECK (samples = tp + fp + tn + fn)
);

CREATE INDEX IF NOT EXISTS model_evaluations_by_run ON model_evaluations (evaluation_run_id);

CREATE INDEX IF NOT EXISTS model_evaluations_of_fleet
ON model_evaluations (model_version, window_end DESC) WHERE device_id = '*';

-- A sample of predictions on labelled rows, by the newest version of each run.
CREATE TABLE IF NOT EXISTS model_feedback (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    model_version BIGINT NOT NULL,
    kafka_partition INTEGER NOT NULL,
    kafka_offset BIGINT NOT NULL,
    event_time TIMESTAMP WITH TIME ZONE NOT NULL,
    device_id TEXT NOT NULL,
    evaluation_run_id TEXT NOT NULL,
    quality_status TEXT NOT NULL DEFAULT 'pending'
    CHECK (quality_status IN ('pending', 'passed', 'quarantined')),
    evaluation_timestamp TIMESTAMP WITH TIME ZONE NOT NULL,
    -- Probability of an anomaly
    prediction DOUBLE PRECISION NOT NULL,
    actual SMALLINT NOT NULL,
    -- |actual - prediction| and |2 prediction - 1|
    error DOUBLE PRECISION NOT NULL,
    confidence DOUBLE PRECISION NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    PRIMARY KEY (model_version, kafka_partition, kafka_offset, event_time)
);

CREATE INDEX IF NOT EXISTS model_feedback_by_run ON model_feedback (evaluation_run_id);

-- A full fleet adds some 50,000 evaluations a run: chunks of a day, compressed after a week.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        PERFORM create_hypertable(
            'model_evaluations', 'window_end',
            chunk_time_interval => INTERVAL '1 day', if_not_exists => TRUE
        );
        PERFORM create_hypertable(
            'model_feedback', 'event_time',
            chunk_time_interval => INTERVAL '1 day', if_not_exists => TRUE
        );
        -- The Apache edition of TimescaleDB has hypertables, but no compression and no policies.
        IF current_setting('timescaledb.license', TRUE) = 'timescale' THEN
            ALTER TABLE model_evaluations SET (
                timescaledb.compress,
                timescaledb.compress_segmentby = 'device_id',
                timescaledb.compress_orderby = 'window_end, model_version'
            );
            ALTER TABLE model_feedback SET (
                timescaledb.compress,
                timescaledb.compress_segmentby = 'model_version',
                timescaledb.compress_orderby = 'kafka_partition, kafka_offset'
            );
            PERFORM add_compression_policy(
                'model_evaluations', INTERVAL '7 days', if_not_exists => TRUE
            );
            PERFORM add_compression_policy(
                'model_feedback', INTERVAL '7 days', if_not_exists => TRUE
            );
            PERFORM add_retention_policy(
                'model_evaluations', INTERVAL '90 days', if_not_exists => TRUE
            );
            PERFORM add_retention_policy(
                'model_feedback', INTERVAL '30 days', if_not_exists => TRUE
            );
        END IF;
    END IF;
END
$$;

-- What consumers outside the evaluation should read: all columns, whichever there are.
CREATE OR REPLACE VIEW passed_evaluations AS
SELECT * -- noqa: AM04
FROM model_evaluations
WHERE quality_status = 'passed';

CREATE OR REPLACE VIEW passed_feedback AS
SELECT * -- noqa: AM04
FROM model_feedback
WHERE quality_status = 'passed';
