"""The start of trainings: from photographs that have arrived to a training the provider knows.

One model, asked for by a person (`start_training`), step by step for whoever materialises its assets by hand,
or everything that is ready as one batch (`start_ready`). All three go through the same steps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from lora_pipeline.archives import TrainingZipError
from lora_pipeline.connections import Connections
from lora_pipeline.database.tables import ImageSet, ModelVersion, TrainingRun, UserModel
from lora_pipeline.image_sets.facts import image_set_facts
from lora_pipeline.image_sets.intake import take_in_from_inbox
from lora_pipeline.image_sets.freezing import FrozenSet, SetBlocked, freeze_set, latest_frozen_set
from lora_pipeline.image_sets.inbox import IntakeError
from lora_pipeline.image_sets.profiles import ImageProfile
from lora_pipeline.image_sets.readiness import ready_models
from lora_pipeline.objects import ObjectStoreError
from lora_pipeline.providers.protocol import ProviderError
from lora_pipeline.trainings.batches import BatchReport, Failure, batch_lease
from lora_pipeline.trainings.controls import submission_switch
from lora_pipeline.trainings.facts import training_event, zip_event
from lora_pipeline.trainings.finalisation import Finalisation, finalise_training, trained_event
from lora_pipeline.trainings.intents import OpenedTraining, TrainingRefused, TrainingWish, open_training
from lora_pipeline.trainings.leases import take_lease
from lora_pipeline.trainings.lifecycle import OPEN, TrainingState
from lora_pipeline.trainings.outbox import AssetEvent, owe
from lora_pipeline.trainings.packing import pack_training
from lora_pipeline.trainings.parameters import ParametersRefused
from lora_pipeline.trainings.submission import (
    Submission,
    SubmissionResult,
    SubmissionRules,
    submit_training,
    submittable,
)
