"""The rules, in the order in which lowering asks them: those that cover more layers first.

A file is a rule: its pattern of layers, its guard, and the step that takes their place. The layers are the step's oracle: rules
on and off (``events=False``) must agree.
"""

from . import (
    batch_norm,
    conv_of_bits,
    conv_pool,
    conv_pool_leaky,
    flatten_linear,
    idle_dropout,
    large_linear,
    leaky_conv_pool,
    linear_of_bits,
    neuron_to_bits,
    pool_of_bits,
    pooled_neuron,
    static_leaky,
    wide_weight,
)

__all__ = ["RULES"]

RULES = [
    *leaky_conv_pool.RULES,
    *conv_pool_leaky.RULES,
    *conv_pool.RULES,
    *pooled_neuron.RULES,
    *large_linear.RULES,
    *flatten_linear.RULES,
    *batch_norm.RULES,
    *conv_of_bits.RULES,
    *linear_of_bits.RULES,
    *wide_weight.RULES,
    *static_leaky.RULES,
    *neuron_to_bits.RULES,
    *pool_of_bits.RULES,
    *idle_dropout.RULES,
]
