"""Fits a line with DistributedDataParallel; ends with 1 unless all replicas hold the same model."""

import os
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

STEPS = int(os.environ.get("STEPS", "60"))


def main() -> int:
    on_gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if on_gpu else "gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    torch.manual_seed(rank)  # other weights on each; DDP takes those of rank 0
    model = DistributedDataParallel(torch.nn.Linear(2, 1).to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    points = torch.randn(64, 2, device=device)  # other points on each
    wanted = points @ torch.tensor([[3.0], [-2.0]], device=device) + 0.5
    wanted += 0.1 * torch.randn_like(wanted)  # so that a loss of about 0.01 remains
    for _ in range(STEPS):
        loss = torch.nn.functional.mse_loss(model(points), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mean = loss.detach().clone()
    dist.all_reduce(mean)
    mean /= size
    weights = torch.cat([p.detach().ravel() for p in model.parameters()])
    all_weights = [torch.empty_like(weights) for _ in range(size)]
    dist.all_gather(all_weights, weights)
    alike = all(torch.equal(weights, others) for others in all_weights)
    values = " ".join(f"{value:.3f}" for value in weights.tolist())
    print(
        f"rank {rank}/{size} own loss {loss.item():.6f} mean loss {mean.item():.9f} "
        f"weights {values}",
        flush=True,
    )
    dist.barrier()  # no rank takes its sockets down while another still reads from them
    dist.destroy_process_group()
    return 0 if alike and mean.item() < 0.05 else 1


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # torch 2.13 aborts now and then as it takes itself down on a busy machine
