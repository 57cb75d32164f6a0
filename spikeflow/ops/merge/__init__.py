"""Where the branches of a network meet, and where they part.

a is what the body of a residual block gives, b what its shortcut gives; spikes are 0 or 1. At each number

    add      y = a + b             da = dy              db = dy                              (1)
    and      y = a b               da = dy b            db = dy a                            (2)
    iand     y = b (1 - a)         da = -dy b           db = dy (1 - a)                      (3)

are the functions g of Fang et al. (2021), "Deep Residual Learning in Spiking Neural Networks", table 1, in which a is A and b is
S. For spikes (2) is "both fire", (3) "the shortcut fires and the body does not". A sum of n branches is (1), from the first on.

    concat   y = (a, b) along the channels        da, db = the parts of dy                   (4)

What parts is read by n branches, so that their gradients add up, from the first branch on:

    x_k = x                        dx = sum_k dx_k                                           (5)

A branch before whose end no neuron comes is constant in time while the other is not. It is shown at every step:

    y[t] = x[0]                    dx[0] = sum_t dy[t]                                       (6)
"""
