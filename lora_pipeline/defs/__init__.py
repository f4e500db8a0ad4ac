"""Dagster only: assets, sensors, jobs, schedules and resources. Each body calls one operation; no rule lives here."""
