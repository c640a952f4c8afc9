"""Sets of CSV files as rows of telemetry, by a data spec."""
