-- Queries call time_bucket without a schema: TimescaleDB's where it exists, else this stand-in,
-- which the search path reaches last. The origin is TimescaleDB's; date_bin refuses months.
CREATE SCHEMA IF NOT EXISTS flead_compat;

CREATE OR REPLACE FUNCTION flead_compat.time_bucket(
    bucket_width INTERVAL, ts TIMESTAMP WITH TIME ZONE
) RETURNS TIMESTAMP WITH TIME ZONE
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
AS $$ SELECT date_bin(bucket_width, ts, TIMESTAMP WITH TIME ZONE '2000-01-03 00:00:00+00') $$;

-- A default of the database, so that dashboards and jobs with connections of their own have it too.
DO $$
DECLARE
    path TEXT := current_setting('search_path');
BEGIN
    IF position('flead_compat' IN path) = 0 THEN
        EXECUTE format(
            'ALTER DATABASE %I SET search_path = %s, flead_compat', current_database(), path
        );
    END IF;
END
$$;
