"""Analysis of rows that Spark holds: decoding, inputs, scores and figures, on Arrow tables."""
