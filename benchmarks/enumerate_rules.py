"""Every short chain of layers, with the engine's rules on and off: spikes equal to the bit, gradients to rounding.

    python benchmarks/enumerate_rules.py                    all chains of up to three layers, and the touching ones of four
    python benchmarks/enumerate_rules.py --length 4 --all   all chains of up to four
    python benchmarks/enumerate_rules.py --only N,C,P,N     one chain

The letters are the kinds of layers that a rule mentions or looks at: convolutions with and without padding, pools whose windows
tile the image, overlap or leave gaps, Flatten, linear layers of many and of few outputs, batch normalisation, dropout, and
neurons: plain, simple, with learned numbers of their own, graded. In front come images shown at every step, a sequence of numbers
or one of spikes; behind come a linear layer and a plain neuron, which reads whatever can come as bits.

Weights and inputs are small multiples of 1 / 4, so that every sum is exact in any order: what the neurons do must be equal to
the bit. Batch normalisation divides; behind it the same is asked of every step by itself, as ``SPIKEFLOW_CHECK=1`` does.

Of four layers only those chains are new in which two patterns touch: where a rule's step lies beside another that covers several
layers. The others are put together from shorter ones.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

import spikeflow as sf
from spikeflow.engine.check import CheckError

STEPS, BATCH, SIZE = 3, 5, (2, 12, 12)  # two blocks
BOUND = 1e-5  # of a gradient's norm


def atan():
    return sf.surrogate.atan(2)


LETTERS = {
    "C": lambda shape: sf.Conv2d(shape[0], 3, 2),
    "K": lambda shape: sf.Conv2d(shape[0], 2, 3, padding=1, bias=False),
    "P": lambda shape: sf.MaxPool2d(2),
    "O": lambda shape: sf.MaxPool2d(2, 1),
    "G": lambda shape: sf.MaxPool2d(2, 3),
    "F": lambda shape: sf.Flatten(),
    "L": lambda shape: sf.Linear(shape[0], 20),
    "S": lambda shape: sf.Linear(shape[0], 5),
    "B": lambda shape: (sf.BatchNorm2d if len(shape) == 3 else sf.BatchNorm1d)(shape[0]),
    "D": lambda shape: sf.Dropout(0.5),
    "N": lambda shape: sf.Leaky(0.5, 0.5, atan()),
    "I": lambda shape: sf.IFNode(0.5, surrogate_function=atan()),
    "Y": lambda shape: sf.Synaptic(0.5, 0.5, 0.5, atan(), learn_alpha=True),
    "Z": lambda shape: sf.Leaky(0.5, 0.5, atan(), graded_spikes_factor=2.0, reset_delay=False),
}
NEURONS = "NIYZ"
FRONTS = ("static", "numbers", "bits")


@dataclass(frozen=True)
class Chain:
    """What lies in front, and letters."""

    front: str
    letters: str

    def layers(self) -> list:
        """-> its layers, and those behind it; ValueError where shapes do not fit."""
        shape, found = SIZE, []
        for make in [LETTERS[letter] for letter in self.letters]:
            found.append(make(shape))
            shape = _after(found[-1], shape)
        behind = [sf.Flatten()] if len(shape) == 3 else []
        return [*found, *behind, sf.Linear(int(np.prod(shape)), 17), sf.Leaky(0.5, 0.5, atan())]


def _after(layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(layer, sf.Linear) and len(shape) == 3:
        raise ValueError("a linear layer takes rows")
    return layer.output_shape(shape)


def chains(length: int, part: int = 0, parts: int = 1) -> Iterator[Chain]:
    """-> all chains of so many layers whose shapes fit; of all words, every ``parts``th from number ``part`` on."""
    words = itertools.product(FRONTS, itertools.product(LETTERS, repeat=length))
    for front, word in itertools.islice(words, part, None, parts):
        chain = Chain(front, "".join(word))
        try:
            chain.layers()
        except ValueError:
            continue
        yield chain


def network(chain: Chain, **options):
    """-> the network with small dyadic weights."""
    net = sf.Sequential(*chain.layers(), seed=len(chain.letters), **options)
    rng = np.random.default_rng(0)
    for layer in net.layers:
        for parameter in layer.params.values() if isinstance(layer, (sf.Conv2d, sf.Linear)) else ():
            parameter.value = rng.choice([-0.25, 0, 0.25, 0.25, 0.5], parameter.value.shape)
    return net


def images(front: str) -> tuple[np.ndarray, int | None]:
    """-> images or a sequence, and num_steps."""
    rng = np.random.default_rng(1)
    if front == "static":
        return rng.integers(0, 5, (BATCH, *SIZE)).astype(np.float32) / 4, STEPS
    sequence = rng.integers(0, 5, (STEPS, BATCH, *SIZE)).astype(np.float32) / 4
    return (sequence > 0.5 if front == "bits" else sequence), None


def touches(chain: Chain) -> bool:
    """Among the letters, does a step of several layers lie beside another that a rule made?"""
    net = network(chain)
    for training in (True, False):
        steps = [s for s in net.program(*images(chain.front), training=training).steps if s.layers]
        steps = [step for step in steps if int(step.layers[0].name) < len(chain.letters)]
        if any(a.rule and b.rule and max(len(a.layers), len(b.layers)) > 1 for a, b in itertools.pairwise(steps)):
            return True
    return False


def passes(net, x, num_steps, training: bool) -> list[tuple[str, np.ndarray]]:
    """-> spikes, membrane, dL/dinput and all gradients of one pass, each with its name."""
    net.train(training).zero_grad()
    net.draws = 0
    spikes, membrane = net.forward(x, num_steps)
    rng = np.random.default_rng(2)
    given = (rng.normal(size=spikes.shape).astype(np.float32) for _ in range(2))
    dx = net.backward(*given, input_grad=True)
    found = [("spikes", spikes), ("membrane", membrane), ("input", dx)]
    return found + [(parameter.name, parameter.grad.copy()) for parameter in net.parameters()]


def differences(chain: Chain) -> list[str]:
    """-> what rules on and off disagree about, in words; checked step by step where a batch normalisation divides."""
    x, num_steps = images(chain.front)
    divides = "B" in chain.letters
    found = []
    for training in (True, False) if set(chain.letters) & {"B", "D"} else (True,):
        try:
            on, off = (passes(network(chain, events=events), x, num_steps, training) for events in (True, False))
            if divides:
                os.environ["SPIKEFLOW_CHECK"] = "1"
                passes(network(chain), x, num_steps, training)
        except (CheckError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
            return [f"{chain}: {type(error).__name__}: {error}"]
        finally:
            os.environ.pop("SPIKEFLOW_CHECK", None)
        found += [f"{chain}, {'training' if training else 'evaluation'}: {text}" for text in _compare(on, off, divides)]
    return found


def _compare(on, off, divides: bool) -> list[str]:
    if divides and not np.array_equal(on[0][1], off[0][1]):
        return []  # rounding has moved a spike: each step was checked by itself
    found = []
    size = max(np.linalg.norm(expected) for _, expected in off[2:])
    for (name, ours), (_, theirs) in zip(on, off, strict=True):
        if name in ("spikes", "membrane") and not divides:
            if not np.array_equal(ours, theirs):
                found.append(f"{name} differ at {np.count_nonzero(ours != theirs)} of {ours.size} places")
            continue
        error, norm = np.linalg.norm(ours.astype(np.float64) - theirs), np.linalg.norm(theirs)
        # A bias in front of a normalisation has no gradient but what is rounded; every step was checked by itself.
        bound = 10 * BOUND * max(norm, size) if divides else BOUND * max(norm, size / 100)
        if not error <= bound:
            found.append(f"{name} differs by {error / max(norm, 1e-300):.2g} of its norm")
    return found


def wanted(length: int, every: bool = False, part: int = 0, parts: int = 1) -> Iterator[Chain]:
    """-> the chains to compare, or a part of them."""
    for count in range(1, length + 1):
        for chain in chains(count, part, parts):
            if every or count < 4 or touches(chain):
                yield chain


def main(argv: list[str] | None = None) -> int:
    """Compare all chains -> exit status: 1 if rules on and off disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=4)
    parser.add_argument("--all", action="store_true", help="of four layers and more, all chains, not only those that touch")
    parser.add_argument("--only", metavar="LETTERS", help="one chain, such as N,C,P,N, behind each front")
    parser.add_argument("--part", metavar="K/N", default="1/1", help="of the chains, every Nth from the Kth on")
    args = parser.parse_args(argv)
    sf.set_num_threads(1)
    part, parts = map(int, args.part.split("/"))
    if args.only:
        todo = [Chain(front, args.only.replace(",", "")) for front in FRONTS]
    else:
        todo = wanted(args.length, args.all, part - 1, parts)
    start, count, failed = time.perf_counter(), 0, 0
    for chain in todo:
        count += 1
        for text in differences(chain):
            failed += 1
            print(text, flush=True)
    print(f"{count} chains, {failed} differences, {time.perf_counter() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
