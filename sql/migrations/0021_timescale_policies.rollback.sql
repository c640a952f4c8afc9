DO $$
DECLARE
    compressed TEXT;
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
        AND current_setting('timescaledb.license', TRUE) = 'timescale' THEN
        -- Its policy goes with it.
        DROP MATERIALIZED VIEW IF EXISTS stream_fleet_windows;
        FOREACH compressed IN ARRAY ARRAY[
            'stream_analysis_results', 'anomalies', 'device_samples', 'data_quality_results',
            'training_health'
        ]
        LOOP
            PERFORM remove_compression_policy(compressed, if_exists => TRUE);
            PERFORM decompress_chunk(chunk, if_compressed => TRUE)
            FROM show_chunks(compressed) AS chunk;
            EXECUTE format('ALTER TABLE %I SET (timescaledb.compress = FALSE)', compressed);
        END LOOP;
    ELSE
        DROP VIEW IF EXISTS stream_fleet_windows;
    END IF;
END
$$;
