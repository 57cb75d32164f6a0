"""Batch normalisation (Ioffe and Szegedy 2015) over all axes but the channel.

x (N, C), N rows: pixels, samples and time steps alike. Mean and variance of each channel over the n = N rows of a batch:

    mu    = sum_r x[r] / n                                                                                  (1)
    var   = sum_r (x[r] - mu)^2 / n                                                                         (2)
    xh[r] = (x[r] - mu) / sqrt(var + eps)                                                                   (3)
    y[r]  = gamma xh[r] + beta  =  scale x[r] + shift                                                       (4)

with scale = gamma / sqrt(var + eps), shift = beta - scale mu. The sums of a batch that comes in blocks are taken about one
``center``, a row of x, in float64, so that blocks add up and nothing cancels: with a = sum (x - center), b = sum (x - center)^2,
mu = center + a / n and var = b / n - (a / n)^2.

Backward.  mu and var depend on every row. With dy = dL/dy,

    dbeta  = sum_r dy[r]                                                                                    (5)
    dgamma = sum_r dy[r] xh[r]                                                                              (6)
    dx[r]  = scale (dy[r] - dbeta / n - xh[r] dgamma / n)                                                   (7)

(7) is linear in dy[r] and x[r] alone, once the two sums are known: dx = a dy + b x + c with numbers a, b, c for each channel.

A constant input.  If x is the same at all T steps, n = T N rows have the mean and variance of N rows, and xh[r] is the same at
all steps. So the sum of (7) over time, which is all that the layers before a constant input need, is (7) with the sums of dy over
time in place of dy and N in place of n: the layer may run once, before time begins.

Evaluation.  mu and var are the running estimates, which are constants:  dx[r] = scale dy[r].
"""
