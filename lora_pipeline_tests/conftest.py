"""Fixtures that every area may take."""

pytest_plugins = [
    "lora_pipeline_tests.fixtures.databases",
    "lora_pipeline_tests.fixtures.pipeline",
    "lora_pipeline_tests.fixtures.runpod",
]
