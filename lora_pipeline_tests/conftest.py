"""Fixtures that every area may take."""

from hypothesis import HealthCheck, settings

pytest_plugins = [
    "lora_pipeline_tests.fixtures.databases",
    "lora_pipeline_tests.fixtures.pipeline",
    "lora_pipeline_tests.fixtures.runpod",
]

# A busy machine is slow, which says nothing about an example.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
