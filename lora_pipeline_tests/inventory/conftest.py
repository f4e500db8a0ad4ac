"""The fixtures of this area: the command line's, and buckets on a real S3 server."""

from lora_pipeline_tests.cli.conftest import home, run
from lora_pipeline_tests.fixtures.s3 import s3_server
from lora_pipeline_tests.inventory.buckets import aws, bucket

__all__ = ["aws", "bucket", "home", "run", "s3_server"]
