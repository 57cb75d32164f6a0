"""Flatten an image to a row of features.

    y[n, (c H + h) W + w] = x[n, h, w, c]                                                (1)

Channel first, although the engine keeps channels last: weights of a following Linear then match PyTorch's. The backward pass
is the inverse permutation:

    dx[n, h, w, c] = dy[n, (c H + h) W + w]                                              (2)
"""
