"""Time one training step of the Tutorial-6 network, in turn with other libraries.

    python benchmarks/train_step.py                                       spikeflow, and what this Python can import
    python benchmarks/train_step.py --peer-python ~/peers/bin/python      the other libraries in their own environment
    python benchmarks/train_step.py --warmup-iterations 100               with weights that 100 iterations have trained
    python benchmarks/train_step.py --inference                           the forward pass alone
    python benchmarks/train_step.py --backend cuda                        spikeflow on an NVIDIA GPU
    python benchmarks/train_step.py --compile --json step.json            with torch.compile: slow to start

Conv2d(1, 12, 5) - MaxPool2d(2) - Leaky - Conv2d(12, 64, 5) - MaxPool2d(2) - Leaky - Flatten - Linear(1024, 10) - Leaky,
beta 0.5, fast sigmoid of slope 25, on a batch of MNIST, the same image at each of the time steps. A step clears the
gradients, runs forward, the rate cross-entropy and backward, and lets Adam (lr 1e-2) change the weights. The weights
are restored before every step, outside the timing: spike densities, and the work with them, would drift otherwise.

First of all every candidate's loss must agree with spikeflow's: nothing is timed that computes something else.
spikeflow runs in this process; the others share one child process. Peak memory is measured apart: a fresh process for
each candidate takes two steps and does nothing else.

On a GPU the clock is read when the device has done all that it was given, and the weights are on it before the clock starts; the
batch is copied to it within the step. Peak memory, the processor's, is not measured. Without a GPU the exit status is 3.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import candidates
import harness
import tutorial6

WORKER = Path(__file__).with_name("step_worker.py")


def main(argv: list[str] | None = None) -> int:
    """Run the comparison -> exit status: 1 if a candidate's loss disagrees, 3 if the backend cannot run here."""
    args = parse(argv)
    if args.backend == "cuda":
        try:
            print(f"card: {card()}\n")
        except RuntimeError as error:
            print(f"train_step: {error}", file=sys.stderr)
            return 3
    task = make_task(args)
    with tempfile.TemporaryDirectory() as folder, harness.Worker(args.peer_python, WORKER) as worker:
        path = Path(folder) / "task.npz"
        task.save(path)
        peers = worker.ask("environment", threads=args.threads)
        environment = {"spikeflow": harness.environment(args.threads), "peers": peers}
        for side, facts in environment.items():
            print(f"{side}\n{harness.describe(facts)}\n")
        steps = {"spikeflow": own_step(task, args.inference, args.backend)}
        steps |= peer_steps(worker, path, wanted(args), args.inference)
        losses = {name: step()["loss"] for name, step in steps.items()}
        if not harness.agree(losses, not_judged=[name for name in losses if not candidates.CANDIDATES[name][2]]):
            return 1
        seconds = harness.alternate({name: candidates.seconds_of(step) for name, step in steps.items()}, args.rounds)
        measured = [] if args.no_memory else [name for name in steps if name != "spikeflow" or args.backend != "cuda"]
        memory = {name: peak_memory(name, path, args, args.inference) for name in measured}
    print(f"\n{title(args)}\n\n{harness.timing_table(seconds, memory)}")
    options = {key: value for key, value in vars(args).items() if key not in ("peer_python", "json")}
    result = {"options": options, "environment": environment, "losses": losses, "seconds": seconds}
    harness.write_json(args.json, {**result, "peak_rss_mb": memory})
    return 0


def title(args) -> str:
    """-> what is timed."""
    what = "forward pass" if args.inference else "training step"
    return (
        f"{what}, backend {args.backend}, batch {args.batch_size}, {args.num_steps} time steps, {args.threads} threads, "
        f"{args.rounds} rounds, weights after {args.warmup_iterations} iterations"
    )


def parse(argv) -> argparse.Namespace:
    """-> the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, cores = parser.add_argument, harness.available_cores()
    add("--peer-python", default=sys.executable, metavar="PATH", help="interpreter of the other libraries")
    add("--backend", choices=("cpu", "cuda", "reference"), default="cpu", help="spikeflow's (default cpu)")
    add("--rounds", type=int, default=5)
    add("--threads", type=int, default=cores, help="for everyone; default: all cores")
    add("--batch-size", type=int, default=tutorial6.BATCH_SIZE)
    add("--num-steps", type=int, default=tutorial6.NUM_STEPS)
    add("--warmup-iterations", type=int, default=0, metavar="N", help="train everyone's weights for N iterations first")
    add("--inference", action="store_true", help="time the forward pass alone")
    add("--compile", action="store_true", help="add PyTorch under torch.compile")
    add("--no-memory", action="store_true", help="skip the processes that measure peak memory")
    add("--json", type=Path, metavar="PATH", help="write everything to this file")
    return parser.parse_args(argv)


def make_task(args) -> candidates.Task:
    """-> the weights, trained if asked for, and one batch."""
    import spikeflow as sf

    sf.set_num_threads(args.threads)
    net = tutorial6.network()
    if args.warmup_iterations:
        loss = tutorial6.train(net, args.warmup_iterations, args.batch_size, args.num_steps)
        print(f"weights after {args.warmup_iterations} iterations, loss {loss:.4f}\n")
    return candidates.Task(net.state_dict(), *tutorial6.batch(args.batch_size), args.num_steps, args.threads)


def wanted(args) -> list[str]:
    """-> the peers to try."""
    left_out = {"spikeflow"} if args.compile else {"spikeflow", "pytorch-compile"}
    return [name for name in candidates.CANDIDATES if name not in left_out]


def own_step(task: candidates.Task, inference: bool, backend: str = "cpu") -> Callable[[], dict]:
    """-> a function that takes spikeflow's step, in this process."""
    candidate = candidates.make("spikeflow", task, net=tutorial6.network(backend=backend))
    candidate = OnDevice(candidate) if backend == "cuda" else candidate
    return lambda: candidates.run(candidate, task, inference)


def card() -> str:
    """-> the GPU's name; RuntimeError, with what is missing, if kernels cannot run here."""
    from spikeflow.kernels.cuda import gpu

    gpu.require()
    if gpu.SIMULATED:
        raise RuntimeError("backend='cuda' runs in the simulator (NUMBA_ENABLE_CUDASIM is set), whose times say nothing")
    name = gpu.cuda.get_current_device().name
    return name.decode() if isinstance(name, bytes) else name


class OnDevice:
    """A candidate whose clock waits for the device."""

    def __init__(self, candidate):
        self.candidate = candidate

    def restore(self):
        self.candidate.restore()
        self.candidate.net.all_finite()  # brings the weights to the device, and waits

    def train(self):
        return self._done(self.candidate.train())

    def infer(self):
        return self._done(self.candidate.infer())

    @staticmethod
    def _done(result):
        from spikeflow.kernels.cuda import gpu

        gpu.cuda.synchronize()
        return result


def peer_steps(worker: harness.Worker, path: Path, names: list[str], inference: bool) -> dict[str, Callable[[], dict]]:
    """-> {name: function that takes a step of this candidate in the worker}, of those that can be imported."""
    steps = {}
    for name in names:
        missing = worker.ask("make", name=name, task=str(path))
        if missing is None:
            steps[name] = lambda name=name: worker.ask("run", name=name, inference=inference)
        else:
            print(f"{name}: not importable: skipped ({missing})")
    return steps


def python_of(name: str, args) -> str:
    """-> the interpreter that runs a candidate."""
    return sys.executable if name == "spikeflow" else args.peer_python


def peak_memory(name: str, path: Path, args, inference: bool, network: str = "tutorial6") -> float:
    """-> peak memory in MB of a fresh process that takes two steps of one candidate."""
    with harness.Worker(python_of(name, args), WORKER) as worker:
        worker.ask("make", name=name, task=str(path), network=network)
        for _ in range(2):
            worker.ask("run", name=name, inference=inference)
        return worker.ask("peak_rss")


if __name__ == "__main__":
    sys.exit(main())
