"""The project's own database: tables, sessions and migrations.

SQLAlchemy rows live here and in operations only; rules and faces see plain records. The seeds' tables
(`users`, `user_models`, `selfie_uploads`, `training_runs`, `lora_weights`) keep their names and columns,
so that SQL written against the older systems runs unchanged.
"""
