"""spikeflow, by its fused path."""

from __future__ import annotations

import tutorial6

import spikeflow as sf


class Candidate:
    """The Tutorial-6 network in spikeflow, or another one."""

    def __init__(self, task, net=None, loss_fn=None, lr: float = tutorial6.LEARNING_RATE):
        sf.set_num_threads(task.threads)
        self.task = task
        self.net = net or tutorial6.network()
        self.loss_fn = loss_fn or sf.losses.ce_rate_loss()
        self.optimizer = sf.optim.Adam(self.net.parameters(), lr=lr)

    def restore(self):
        self.net.load_state_dict(self.task.weights)

    def train(self):
        self.net.zero_grad()
        loss, _ = self.net.loss_and_grad(self.task.images, self.task.labels, self.loss_fn, self.task.num_steps)
        self.optimizer.step()
        return loss

    def infer(self):
        return self.net.predict(self.task.images, self.task.num_steps, batch_size=len(self.task.images))
