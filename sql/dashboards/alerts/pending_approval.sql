-- Changes of hyperparameters that wait for a person.
SELECT count(*)::DOUBLE PRECISION AS value
FROM tuning_decisions
WHERE status = 'awaiting_approval';
