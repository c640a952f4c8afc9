-- Updates of rounds; a round without any has one row of nulls. Retention takes them after a week.
SELECT
    round.round AS aggregation_round,
    stored.kafka_partition::DOUBLE PRECISION AS kafka_partition,
    stored.kafka_offset::DOUBLE PRECISION AS kafka_offset,
    stored.device_id,
    stored.status,
    stored.accuracy,
    (round.updates - count(stored.device_id) OVER (PARTITION BY round.round))::DOUBLE PRECISION
        AS updates_missing,
    stored.kafka_offset
    >= (round.start_offsets ->> stored.kafka_partition::TEXT)::BIGINT
    AND stored.kafka_offset < (round.end_offsets ->> stored.kafka_partition::TEXT)::BIGINT
        AS is_in_round,
    NOT (
        stored.weights || ARRAY[stored.intercept, stored.learning_rate, stored.accuracy]
        && ARRAY['NaN', 'Infinity', '-Infinity']::DOUBLE PRECISION []
    ) AS is_finite,
    (stored.rows - stored.rows_labelled - stored.rows_pseudo_labelled)::DOUBLE PRECISION
        AS rows_gap,
    (stored.rows - (stored.last_offset - stored.first_offset + 1))::DOUBLE PRECISION
        AS rows_beyond_offsets,
    -- Rows that a device has trained twice
    (
        lag(stored.last_offset) OVER (
            PARTITION BY stored.device_id, stored.input_partition
            ORDER BY stored.first_offset, stored.last_offset
        ) - stored.first_offset + 1
    )::DOUBLE PRECISION AS offsets_of_the_window_before,
    extract(EPOCH FROM round.opened_at - stored.kafka_timestamp)::DOUBLE PRECISION AS age_seconds
FROM aggregation_rounds AS round
LEFT JOIN local_models AS stored ON round.round = stored.aggregation_round
WHERE round.round = ANY(%(rounds)s::BIGINT []) AND round.opened_at > now() - INTERVAL '6 days'
ORDER BY round.round, stored.kafka_partition, stored.kafka_offset
