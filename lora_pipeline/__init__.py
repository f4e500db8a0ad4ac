"""lora_pipeline: from photos to a verified, registered LoRA version."""
