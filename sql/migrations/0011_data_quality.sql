-- What the quality checks found: one row a rule of a suite, for each time that it was checked.
CREATE TABLE IF NOT EXISTS data_quality_results (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    -- The suite's file in expectations/, and the table whose rows it judged.
    suite TEXT NOT NULL,
    table_name TEXT NOT NULL,
    -- evaluation_run_id, or round-NUMBER
    run_id TEXT NOT NULL,
    dag_run_id TEXT,
    rule TEXT NOT NULL,
    expectation TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('critical', 'warning')),
    success BOOLEAN NOT NULL,
    -- Why there is the rule
    reason TEXT NOT NULL,
    element_count BIGINT NOT NULL,
    unexpected_count BIGINT NOT NULL,
    -- Some of the rows that break the rule, by their key and the judged value.
    failing_examples JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    -- TimescaleDB wants the time in every unique index.
    PRIMARY KEY (id, created_at)
);

CREATE INDEX IF NOT EXISTS data_quality_results_by_run
ON data_quality_results (run_id, created_at DESC);

CREATE INDEX IF NOT EXISTS data_quality_results_failed
ON data_quality_results (created_at DESC) WHERE NOT success;

-- A run is checked as a whole, whichever rows of it there are.
ALTER TABLE evaluation_runs
ADD COLUMN IF NOT EXISTS quality_status TEXT NOT NULL DEFAULT 'pending'
CHECK (quality_status IN ('pending', 'passed', 'quarantined'));

ALTER TABLE evaluation_runs
ADD COLUMN IF NOT EXISTS quality_checked_at TIMESTAMP WITH TIME ZONE;

CREATE INDEX IF NOT EXISTS evaluation_runs_unchecked
ON evaluation_runs (evaluated_at) WHERE quality_status = 'pending';

-- A quarantined message stays held, and holds up none that follow it.
ALTER TABLE outbox
ADD COLUMN IF NOT EXISTS is_quarantined BOOLEAN NOT NULL DEFAULT FALSE
CHECK (NOT is_quarantined OR state = 'held');

DROP INDEX IF EXISTS outbox_held;

CREATE INDEX IF NOT EXISTS outbox_holding
ON outbox (topic, key, id) WHERE state = 'held' AND NOT is_quarantined;

CREATE INDEX IF NOT EXISTS outbox_by_evaluation
ON outbox ((value::JSONB ->> 'evaluation_run_id')) WHERE topic = 'model-feedback';

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        PERFORM create_hypertable(
            'data_quality_results', 'created_at',
            chunk_time_interval => INTERVAL '1 day', if_not_exists => TRUE
        );
        -- The Apache edition of TimescaleDB has hypertables, but no policies.
        IF current_setting('timescaledb.license', TRUE) = 'timescale' THEN
            PERFORM add_retention_policy(
                'data_quality_results', INTERVAL '90 days', if_not_exists => TRUE
            );
        END IF;
    END IF;
END
$$;
