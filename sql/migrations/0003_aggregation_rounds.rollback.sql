DROP TABLE IF EXISTS aggregation_rounds;

DROP TABLE IF EXISTS stream_offsets;
