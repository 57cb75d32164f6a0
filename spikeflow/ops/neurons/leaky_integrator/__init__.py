"""A membrane that leaks and integrates and never fires: a readout whose membrane is the output.

    m[t]  = beta m[t-1] + x[t],     s[t] = 0                                                                        (1)

Backward.  Nothing comes through spikes, there is nothing to reset:

    g[t]  = dm[t] + beta g[t+1],    g[T] = 0                                                                        (2)
    dx[t] = g[t]                                                                                                    (3)
    dbeta = sum_t g[t] m[t-1]                                                                                       (4)

Trace: beta = 0.5, reset "none", x = 0.8

    t        0        1        2        3        4        5        6        7        8        9
    m    0.800    1.200    1.400    1.500    1.550    1.575    1.588    1.594    1.597    1.598
    s        0        0        0        0        0        0        0        0        0        0

Beside snnTorch 1.0:

    no such neuron: one takes ``Leaky`` with reset "none" and a huge threshold      added
"""
