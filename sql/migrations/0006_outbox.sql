-- What leaves the database for Kafka, published in id order for each topic and key.
CREATE TABLE IF NOT EXISTS outbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('held', 'ready', 'published')),
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
    published_at TIMESTAMP WITH TIME ZONE,
    CHECK ((state = 'published') = (published_at IS NOT NULL))
);

CREATE INDEX IF NOT EXISTS outbox_ready ON outbox (id) WHERE state = 'ready';

CREATE INDEX IF NOT EXISTS outbox_held ON outbox (topic, key, id) WHERE state = 'held';
