-- What each consumer has read: written in the transaction that writes the data.
CREATE TABLE IF NOT EXISTS stream_offsets (
    consumer TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL CHECK (partition >= 0),
    next_offset BIGINT NOT NULL CHECK (next_offset >= 0),
    PRIMARY KEY (consumer, topic, partition)
);

-- One row a round. It is written in the transaction that stores the updates of the round and moves
-- stream_offsets, so a crash leaves either a whole round to resume or none.
CREATE TABLE IF NOT EXISTS aggregation_rounds (
    round BIGINT PRIMARY KEY CHECK (round >= 1),
    state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'aggregated', 'empty')),
    -- {"partition": offset} of local-model-updates: the round's first, and one past its last
    start_offsets JSONB NOT NULL,
    end_offsets JSONB NOT NULL,
    updates INTEGER NOT NULL,
    dead_letters INTEGER NOT NULL,
    accepted INTEGER,
    -- {"reason": number of updates}
    rejected JSONB,
    version BIGINT,
    dag_run_id TEXT,
    attempts INTEGER NOT NULL DEFAULT 1,
    opened_at TIMESTAMP WITH TIME ZONE NOT NULL,
    attempted_at TIMESTAMP WITH TIME ZONE NOT NULL,
    completed_at TIMESTAMP WITH TIME ZONE,
    CHECK ((state = 'aggregated') = (version IS NOT NULL)),
    CHECK ((state = 'open') = (completed_at IS NULL))
);

CREATE UNIQUE INDEX IF NOT EXISTS aggregation_rounds_one_open
ON aggregation_rounds ((TRUE)) WHERE state = 'open';
