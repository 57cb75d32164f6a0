"""spikeflow, by its fused path."""

from __future__ import annotations

import tutorial6

import spikeflow as sf


class Candidate:
    """The Tutorial-6 network in spikeflow."""

    def __init__(self, task):
        sf.set_num_threads(task.threads)
        self.task = task
        self.net = tutorial6.network()
        self.loss_fn = sf.losses.ce_rate_loss()
        self.optimizer = sf.optim.Adam(self.net.parameters(), lr=tutorial6.LEARNING_RATE)

    def restore(self):
        self.net.load_state_dict(self.task.weights)

    def train(self):
        self.net.zero_grad()
        loss, _ = self.net.loss_and_grad(self.task.images, self.task.labels, self.loss_fn, self.task.num_steps)
        self.optimizer.step()
        return loss

    def infer(self):
        return self.net.predict(self.task.images, self.task.num_steps, batch_size=len(self.task.images))
