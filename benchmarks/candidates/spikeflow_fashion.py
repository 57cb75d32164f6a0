"""spikeflow, by its fused path: SpikingJelly's Fashion-MNIST network."""

from __future__ import annotations

import fashion

import spikeflow as sf

from . import rate_error, spikeflow_step


class Candidate(spikeflow_step.Candidate):
    """SpikingJelly's Fashion-MNIST network in spikeflow."""

    loss_of_spikes = staticmethod(rate_error)

    def __init__(self, task):
        super().__init__(task, fashion.network(len(task.weights["0.weight"])), sf.losses.mse_rate_loss())
        self.optimizer = fashion.optimizer(self.net)
