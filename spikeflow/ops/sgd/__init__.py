"""One step of stochastic gradient descent on one parameter.

value p, grad, and with momentum the velocity v, -0 before the first step, to which (2) adds g exactly, a -0 too:

    g = grad + decay p                                                                                      (1)
    v = momentum v + share g                                                                                (2)
    p = p - lr v,        with nesterov  p = p - lr (g + momentum v)                                         (3)

share = 1 - dampening, 1 at the first step. Without momentum v = g.
"""
