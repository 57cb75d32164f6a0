"""Cross-entropy of rows of logits with a label each, and its gradient: the loop that the losses share.

    CE(z, y) = log sum_c exp(z_c - max z) - (z_y - max z),        dCE/dz = softmax(z) - onehot(y)                       (1)

Shifted by the maximum, no exponential overflows. With smoothed labels every class c has a share r_c of the target as well:

    sum_c r_c CE(z, c),        d/dz_c = p_c sum_k r_k - r_c,        p = softmax(z)                                        (2)
"""
