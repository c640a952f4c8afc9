-- A round that waits for the verdict on a candidate makes no version.
DO $$
DECLARE
    name TEXT;
BEGIN
    FOR name IN
        SELECT conname FROM pg_constraint
        WHERE conrelid = 'aggregation_rounds'::regclass AND contype = 'c'
            AND pg_get_constraintdef(oid) LIKE '%''empty''%'
    LOOP
        EXECUTE format('ALTER TABLE aggregation_rounds DROP CONSTRAINT %I', name);
    END LOOP;
END
$$;

ALTER TABLE aggregation_rounds ADD CONSTRAINT aggregation_rounds_state_known
CHECK (state IN ('open', 'aggregated', 'empty', 'waiting'));

-- Which version became the head in this round: one that it judged or one that it made.
ALTER TABLE aggregation_rounds ADD COLUMN IF NOT EXISTS promoted_version BIGINT;

-- What was decided on each version, and on what evidence.
CREATE TABLE IF NOT EXISTS promotion_decisions (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version BIGINT NOT NULL REFERENCES federated_models (version),
    -- What it was compared with; null where nothing was
    reference_version BIGINT REFERENCES federated_models (version),
    decision TEXT NOT NULL CHECK (decision IN ('promoted', 'rejected', 'rolled_back', 'restored')),
    reason TEXT NOT NULL,
    -- The round that decided, null for a person or another DAG
    aggregation_round BIGINT REFERENCES aggregation_rounds (round),
    decided_by TEXT NOT NULL,
    devices BIGINT,
    rows BIGINT,
    -- Mean over devices of the log loss minus the reference's, in nats
    mean_difference DOUBLE PRECISION,
    p_value DOUBLE PRECISION,
    decided_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now()
);

CREATE INDEX IF NOT EXISTS promotion_decisions_by_version ON promotion_decisions (version);

CREATE UNIQUE INDEX IF NOT EXISTS federated_models_one_candidate
ON federated_models (feature_schema) WHERE status = 'candidate';
