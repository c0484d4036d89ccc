"""What ``bench/gpu_preempt.py`` is made of: logic that any device runs, and two devices.

Only ``cuda`` imports torch, and only in processes that it starts; nothing here imports what the
core does not bring along, so that the GPU machine needs no more than torch and this repository.
"""
