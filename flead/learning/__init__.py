"""Local training: what runs on the stream of each device."""
