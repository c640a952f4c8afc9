-- What the fleet trains with: the newest message of training-control.
SELECT
    value::JSONB AS control,
    state,
    created_at,
    published_at
FROM outbox
WHERE topic = 'training-control' AND key = 'control'
ORDER BY id DESC
LIMIT 1
