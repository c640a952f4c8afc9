-- Updates of rounds; a round without any has one row of nulls. Retention takes them after a week.
SELECT
    opened.round AS aggregation_round,
    stored.kafka_partition::DOUBLE PRECISION AS kafka_partition,
    stored.kafka_offset::DOUBLE PRECISION AS kafka_offset,
    stored.device_id,
    stored.status,
    stored.accuracy,
    (opened.updates - count(stored.device_id) OVER (PARTITION BY opened.round))::DOUBLE PRECISION
        AS updates_missing,
    stored.kafka_offset
    >= (opened.start_offsets ->> stored.kafka_partition::TEXT)::BIGINT
    AND stored.kafka_offset < (opened.end_offsets ->> stored.kafka_partition::TEXT)::BIGINT
        AS is_in_round,
    (
        stored.weights || ARRAY[stored.intercept, stored.learning_rate, stored.accuracy]
        && ARRAY['NaN', 'Infinity', '-Infinity']::DOUBLE PRECISION[]
    ) IS FALSE AS is_finite,
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
    extract(EPOCH FROM opened.opened_at - stored.kafka_timestamp)::DOUBLE PRECISION AS age_seconds
FROM aggregation_rounds AS opened
LEFT JOIN local_models AS stored ON opened.round = stored.aggregation_round
WHERE opened.round = any(%(rounds)s::BIGINT[]) AND opened.opened_at > now() - INTERVAL '6 days'
ORDER BY opened.round, stored.kafka_partition, stored.kafka_offset
