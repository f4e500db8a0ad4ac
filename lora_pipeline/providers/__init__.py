"""Providers that sell trainings, behind one protocol: Replicate, and its simulator through the same client."""
