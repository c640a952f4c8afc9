-- Seconds since a checkpoint completed, 0 while it is younger than %(intervals)s intervals.
SELECT
    coalesce(
        (
            SELECT
                CASE
                    WHEN
                        checkpoint_age_seconds
                        > %(intervals)s * coalesce(checkpoint_interval_seconds, 0)
                        THEN checkpoint_age_seconds
                    ELSE 0
                END
            FROM training_health
            WHERE created_at >= now() - make_interval(secs => %(fresh_seconds)s)
            ORDER BY created_at DESC
            LIMIT 1
        ),
        0
    )::DOUBLE PRECISION AS value;
