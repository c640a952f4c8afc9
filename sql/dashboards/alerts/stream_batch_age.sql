-- Seconds since a batch was committed while rows wait, 0 below %(intervals)s triggers.
SELECT
    coalesce(
        (
            SELECT
                CASE
                    WHEN
                        stream_lag_rows > 0
                        AND stream_batch_age_seconds
                        > %(intervals)s * coalesce(stream_trigger_seconds, 0)
                        THEN stream_batch_age_seconds
                    ELSE 0
                END
            FROM training_health
            WHERE created_at >= now() - make_interval(secs => %(fresh_seconds)s)
            ORDER BY created_at DESC
            LIMIT 1
        ),
        0
    )::DOUBLE PRECISION AS value;
