"""Stand-ins for the training providers that speak their real HTTP protocol, for working without an account.

What belongs here: servers that answer as Replicate and RunPod answer, including their faults, and a
control interface under `/simulator` for tests and benchmarks. Everything they produce is labelled as simulated:
each answer carries the header `Lora-Pipeline-Simulator: true`, each weights file says so in its metadata.
What does not: anything the pipeline itself needs. Nothing outside `simulator/` and the faces that start it imports
this package, and it imports nothing of the pipeline, so that a mistake in the one cannot hide in the other.
"""
