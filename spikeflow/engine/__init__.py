"""How one call of a network runs.

``lower.py``    a network and a kind of input -> a ``Program``: steps, made once for each kind and kept
``rules/``      each file one fusion: the pattern of layers, the guard, the step that takes their place
``steps.py``    what a step is; the plain ones, which run a layer as it is written in ``spikeflow.layers``
``forms.py``    in which form numbers and gradients travel between two steps, and the steps that convert them
``branches.py`` where branches part, turn and meet: containers are walked through, and a program stays one list of steps
``host.py``     the executor on the processor, block by block on all threads; ``device.py`` the one on a GPU
``check.py``    ``SPIKEFLOW_CHECK=1``: the layers that a rule replaces run beside its step

A rule consumes the layers that it covers, so that no layer is run twice or left out; what no rule covers runs plain. Where two
neighbours disagree on a form, lowering puts a conversion between them, so that no step asks what it was given.
"""
