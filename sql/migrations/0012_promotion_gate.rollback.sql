DROP INDEX IF EXISTS federated_models_one_candidate;

DROP TABLE IF EXISTS promotion_decisions;

ALTER TABLE aggregation_rounds DROP COLUMN IF EXISTS promoted_version;

UPDATE aggregation_rounds SET state = 'empty'
WHERE state = 'waiting';

ALTER TABLE aggregation_rounds DROP CONSTRAINT IF EXISTS aggregation_rounds_state_known;

ALTER TABLE aggregation_rounds ADD CONSTRAINT aggregation_rounds_state_check
CHECK (state IN ('open', 'aggregated', 'empty'));
