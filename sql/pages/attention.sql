-- What waits for a person, and what was decided against lately.
SELECT
    (
        SELECT count(*)
        FROM evaluation_runs
        WHERE quality_status = 'quarantined' AND evaluated_at > now() - %(reach)s
    ) AS quarantined,
    (
        SELECT max(revision)
        FROM tuning_decisions
        WHERE status = 'awaiting_approval'
    ) AS awaiting_approval,
    (
        SELECT max(version)
        FROM promotion_decisions
        WHERE decision = 'rolled_back' AND decided_at > now() - %(reach)s
    ) AS rolled_back,
    (
        SELECT count(*)
        FROM outbox
        WHERE state = 'ready' AND created_at < now() - INTERVAL '5 minutes'
    ) AS unpublished
