"""Trainings: parameters, lifecycle, submission, following and finalisation."""
