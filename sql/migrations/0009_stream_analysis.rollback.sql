DROP VIEW IF EXISTS stream_windows;

DROP TABLE IF EXISTS device_samples;

DROP TABLE IF EXISTS anomalies;

DROP TABLE IF EXISTS stream_analysis_results;

DROP TABLE IF EXISTS stream_analysis_batches;

DROP TABLE IF EXISTS stream_deployments;
