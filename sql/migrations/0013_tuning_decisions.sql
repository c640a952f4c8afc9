-- Decisions about the fleet's hyperparameters: one row a change, or a decision to change nothing.
CREATE TABLE IF NOT EXISTS tuning_decisions (
    -- Of training-control, where it published the trials or the revert; a decision to keep has one
    -- that is published nowhere.
    revision BIGINT PRIMARY KEY CHECK (revision >= 1),
    -- What the fleet trained with when it was decided, or the change that a revert takes back
    parent_revision BIGINT NOT NULL CHECK (parent_revision < revision),
    status TEXT NOT NULL CHECK (
        status IN (
            'proposed', 'trying', 'awaiting_approval', 'adopted',
            'kept', 'rejected', 'expired', 'reverted'
        )
    ),
    reason TEXT NOT NULL,
    feature_schema TEXT NOT NULL,
    -- The head when it was decided
    model_version BIGINT NOT NULL,
    -- What the fleet trains with by this decision, and what it trained with before
    hyperparameters JSONB NOT NULL,
    incumbent JSONB NOT NULL,
    -- As published: [{"trial", "fraction", "hyperparameters"}]
    trials JSONB NOT NULL,
    -- How long a trial, and the look back and ahead at it, lasts
    horizon_seconds DOUBLE PRECISION NOT NULL CHECK (horizon_seconds > 0),
    -- The newest revision that gave `hyperparameters` to the whole fleet, null until there is one
    fleet_revision BIGINT UNIQUE CHECK (fleet_revision >= revision),
    evidence JSONB NOT NULL,
    decided_by TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    trial_started_at TIMESTAMP WITH TIME ZONE,
    decided_at TIMESTAMP WITH TIME ZONE,
    -- When nothing more could happen to it; an adopted change is watched first.
    settled_at TIMESTAMP WITH TIME ZONE,
    CHECK ((status IN ('proposed', 'trying', 'awaiting_approval')) = (decided_at IS NULL)),
    CHECK (settled_at IS NOT NULL OR decided_at IS NULL OR status = 'adopted'),
    CHECK (settled_at IS NULL OR decided_at IS NOT NULL)
);

CREATE UNIQUE INDEX IF NOT EXISTS tuning_decisions_one_in_flight
ON tuning_decisions ((TRUE)) WHERE settled_at IS NULL;

-- Optuna makes and migrates its own tables, out of the way of ours.
CREATE SCHEMA IF NOT EXISTS optuna;
