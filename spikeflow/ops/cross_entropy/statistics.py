"""What the losses of a recorded output read of it, for kernels: a number for each class, and how its gradient goes back.

The record is flat (T B C), and ``at`` the place of a class's first neuron within a step of ``stride`` = B C numbers; a class has
``group`` neurons, which is more than one with a population code. A statistic has rows:

    steps        one row for each step s: the sum of the group at that step
    counts       one row, as the others: the sum of the group over all steps
    maximum      over time; its gradient goes to the first step at which it is reached
    negated      - t, t the step of the first number that is not 0, T - 1 without one
    reciprocal   1 / (t + 1)

A time has no derivative; as in ``spikeflow.losses.temporal``, dt/drecord is -1 at the step t and 0 elsewhere.
"""

from __future__ import annotations

import functools

import numpy as np

from ...kernels.cuda.gpu import cuda

__all__ = ["make_statistic"]

ZERO, ONE = np.float32(0), np.float32(1)


@functools.cache
def make_statistic(name: str, adds: bool):
    """-> read(record, T, stride, group, s, at) -> value, step; write(drecord, T, stride, group, s, at, step, gradient).

    ``step`` is where the gradient of the value goes, if it goes to one. ``write`` sets all that the class has of drecord, or adds
    to it.
    """
    put = make_put(adds)
    if name == "steps":
        return make_steps(put)
    if name == "counts":
        return make_counts(put)
    return make_one_step(name, put, adds)


@functools.cache
def make_put(adds: bool):
    @cuda.jit(device=True)
    def put(drecord, at, gradient):
        if adds:
            drecord[at] += gradient
        else:
            drecord[at] = gradient

    return put


def make_steps(put):
    @cuda.jit(device=True)
    def read(record, T, stride, group, s, at):
        total = ZERO
        for j in range(group):
            total += record[s * stride + at + j]
        return total, ZERO

    @cuda.jit(device=True)
    def write(drecord, T, stride, group, s, at, step, gradient):
        for j in range(group):
            put(drecord, s * stride + at + j, gradient)

    return read, write


def make_counts(put):
    @cuda.jit(device=True)
    def read(record, T, stride, group, s, at):
        total = ZERO
        for t in range(T):
            for j in range(group):
                total += record[t * stride + at + j]
        return total, ZERO

    @cuda.jit(device=True)
    def write(drecord, T, stride, group, s, at, step, gradient):
        for t in range(T):
            for j in range(group):
                put(drecord, t * stride + at + j, gradient)

    return read, write


def make_one_step(name: str, put, adds: bool):
    find = make_first_maximum() if name == "maximum" else make_first_spike()
    inverts = name == "reciprocal"

    @cuda.jit(device=True)
    def read(record, T, stride, group, s, at):
        value, step = find(record, T, stride, at)
        return ONE / (step + ONE) if inverts else value, step

    @cuda.jit(device=True)
    def write(drecord, T, stride, group, s, at, step, gradient):
        if inverts:
            gradient = gradient / (step + ONE) / (step + ONE)
        for t in range(T):
            here = np.float32(t) == step
            if here or not adds:
                put(drecord, t * stride + at, gradient if here else ZERO)

    return read, write


@functools.cache
def make_first_maximum():
    @cuda.jit(device=True)
    def find(record, T, stride, at):
        """-> the maximum over time, NaN if there is one, and its first step."""
        largest, step = record[at], ZERO
        for t in range(1, T):
            x = record[t * stride + at]
            if not (x <= largest) and largest == largest:
                largest, step = x, np.float32(t)
        return largest, step

    return find


@functools.cache
def make_first_spike():
    @cuda.jit(device=True)
    def find(record, T, stride, at):
        """-> - t, t."""
        t = 0
        while t < T - 1 and record[t * stride + at] == ZERO:
            t += 1
        return -np.float32(t), np.float32(t)

    return find
