"""One step of Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019) on one parameter.

value p, grad, and two moments: mean m and square v, zeros before the first step. At step k = 1, 2, ...

    p = keep p,        g = grad + decay p                                                                   (1)
    m = m + (1 - b1) (g - m)                                                                                (2)
    v = b2 v + (1 - b2) g^2                                                                                 (3)
    p = p - step_size m / (sqrt(v) / root + eps)                                                            (4)

m and v are sums of past gradients whose weights add up to 1 - b1^k and 1 - b2^k. Divided by these they are averages:

    step_size = lr / (1 - b1^k),        root = sqrt(1 - b2^k)                                               (5)

Weight decay is a part of the gradient in Adam (keep = 1, decay = weight_decay), a shrinking of the value in AdamW
(keep = 1 - lr weight_decay, decay = 0).
"""
