"""The embedded stack: simulator, HTTP server and Dagster as processes of one machine, started and ended together."""
