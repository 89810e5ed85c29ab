"""Two processes of one training: gradients are averaged between them, the clock is the first's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from engines.imp.parallel import Team
from engines.imp.training import Step, captured

CHILD = """
import torch
from engines.imp.parallel import Team
from engines.imp.training import Step
team = Team("cpu")
p = torch.nn.Parameter(torch.zeros(3))
mean = torch.full((2,), float(team.rank))
seen = []
step = Step(lambda: (p * (team.rank + 1.0)).sum().backward(), lambda: seen.append(p.grad.clone()),
            [p], team, [mean])
step(); step()
print(team.rank, team.first, seen[-1].tolist(), mean.tolist(), team.agreed(5.0 + team.rank))
team.close()
"""


def test_two_processes_share_gradients_statistics_and_the_clock() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = str(Path(__file__).resolve().parents[2])
    common = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "PYTHONPATH": root}
    common |= {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD],
            env=common | {"RANK": str(rank)},
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [child.communicate(timeout=100)[0].strip() for child in children]
    assert said == [
        "0 True [1.5, 1.5, 1.5] [0.5, 0.5] 5.0",
        "1 False [1.5, 1.5, 1.5] [0.5, 0.5] 5.0",
    ]


def test_a_step_of_one_process_forgets_the_gradients_of_the_last() -> None:
    p, seen = torch.nn.Parameter(torch.ones(2)), list[list[float]]()

    def gradients() -> None:
        (3 * p).sum().backward()

    def update() -> None:
        assert p.grad is not None
        seen.append(p.grad.tolist())

    step = captured(Step(gradients, update, [p], Team("cpu")), cuda=False)
    step()
    step()
    assert seen == [[3.0, 3.0], [3.0, 3.0]]
