"""Settings of all tests."""

from __future__ import annotations

import os

# Idle threads that spin starve the ones that work, on small machines and on shared ones.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

torch.set_num_threads(1)
