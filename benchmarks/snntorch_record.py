"""Runs snnTorch and writes down everything it does, for parity*.py (as their child process) and for make_trace.py."""

from __future__ import annotations

from collections.abc import Callable

import harness  # before numpy
import numpy as np
import snntorch as snn
import snntorch.functional as SF
import torch
from snntorch import surrogate
from snntorch.functional.loss import SpikeTime
from torch import nn

OUT_OF_REACH = 1e30  # a threshold that turns a Leaky into an integrator


# ---------------------------------------------------------------------------------------------------- Tutorial 6


def csnn(weights: dict[str, np.ndarray], beta: float) -> nn.Sequential:
    """-> {Conv2d, MaxPool2d(2), Leaky} twice, Flatten, Linear, Leaky, of the weights' sizes."""
    lif = dict(beta=beta, spike_grad=surrogate.fast_sigmoid(slope=25))
    (O1, C1, K, _), (O2, _, _, _), (classes, features) = (weights[f"{i}.weight"].shape for i in (0, 3, 7))
    net = nn.Sequential(
        nn.Conv2d(C1, O1, K), nn.MaxPool2d(2), snn.Leaky(**lif),
        nn.Conv2d(O1, O2, K), nn.MaxPool2d(2), snn.Leaky(**lif),
        nn.Flatten(), nn.Linear(features, classes), snn.Leaky(**lif),
    )  # fmt: skip
    state = {name: torch.from_numpy(value) for name, value in weights.items()}
    if set(state) != {name for name, _ in net.named_parameters()}:
        raise ValueError(f"weights {sorted(state)} do not fit the network")
    net.load_state_dict(state, strict=False)  # the neurons' constants are entries of the state dict too
    return net


def run(net: nn.Sequential, images: np.ndarray, labels: np.ndarray, num_steps: int) -> dict[str, np.ndarray]:
    """Show the images at every step, take ce_rate_loss, and go backward.

    Returns
    -------
    dict
        ``loss``; ``grad/NAME`` of every parameter; ``activation/i`` and ``gradient/i`` (T, B, ...), the input of layer
        i and dL/d of it, where i = number of layers is the output; ``membrane/i`` (T, B, ...) of the neurons.
    """
    activations = [[] for _ in range(len(net) + 1)]
    membranes = {i: [layer.reset_mem()] for i, layer in enumerate(net) if isinstance(layer, snn.Leaky)}
    for _ in range(num_steps):
        x = torch.from_numpy(images).clone().requires_grad_()
        activations[0].append(x)
        for i, layer in enumerate(net):
            if i in membranes:
                x, membrane = layer(x, membranes[i][-1])
                membranes[i].append(membrane)
            else:
                x = layer(x)
            x.retain_grad()
            activations[i + 1].append(x)
    loss = SF.ce_rate_loss()(torch.stack(activations[-1]), torch.from_numpy(labels))
    loss.backward()
    result = {"loss": np.float64(loss.item())}
    result |= {f"grad/{name}": parameter.grad.numpy() for name, parameter in net.named_parameters()}
    result |= {f"activation/{i}": _stack(steps) for i, steps in enumerate(activations)}
    result |= {f"gradient/{i}": _stack([x.grad for x in steps]) for i, steps in enumerate(activations)}
    return result | {f"membrane/{i}": _stack(steps[1:]) for i, steps in membranes.items()}


def _stack(steps) -> np.ndarray:
    return torch.stack([step.detach() for step in steps]).numpy()


# ---------------------------------------------------------------------------------------------------- any neuron


class Unrolled:
    """A neuron of snnTorch that is run over time, and remembers how near its membranes came to the threshold.

    Parameters
    ----------
    name : str
        A class of spikeflow; a LeakyIntegrator is a Leaky without reset whose threshold is out of reach.
    options : dict
        Of its constructor, but for ``numbers`` and ``spike_grad``. Alpha's ``learn_alpha``, at which the constructor fails, is
        put right afterwards: its buffer is replaced by a parameter.
    numbers : dict of str to array
        beta, threshold, ...
    spike_grad : dict
        ``name`` of the surrogate, and its parameters.
    weights : dict of str to array
        Of recurrent neurons.
    """

    def __init__(self, name: str, options: dict, numbers: dict[str, np.ndarray], spike_grad: dict, weights=None):
        tensors = {key: torch.from_numpy(np.array(value)) for key, value in numbers.items()}
        if name == "LeakyIntegrator":
            name, options, tensors = "Leaky", {**options, "reset_mechanism": "none"}, {**tensors, "threshold": OUT_OF_REACH}
        options = dict(options)
        learn_alpha = options.pop("learn_alpha", False)
        if name != "Alpha" and learn_alpha:
            options["learn_alpha"] = True
        constants = {key: value for key, value in spike_grad.items() if key != "name"}
        self.layer = getattr(snn, name)(**options, **tensors, spike_grad=getattr(surrogate, spike_grad["name"])(**constants))
        if name == "Alpha" and learn_alpha:
            del self.layer.alpha
            self.layer.alpha = nn.Parameter(tensors["alpha"])
        if weights:
            state = {key: torch.from_numpy(np.array(value)) for key, value in weights.items()}
            self.layer.load_state_dict(state, strict=False)
        self.recurrent = name.startswith("R")
        self.edge = constants.get("B", 1) if spike_grad["name"] == "SFS" else None  # its derivative jumps there
        self.margin, self.states = float("inf"), ()
        self._watch()

    def _watch(self) -> None:
        """Have the layer note how far its membranes are from where something would change."""
        layer, fire, mem_reset, fire_inhibition = self.layer, self.layer.fire, self.layer.mem_reset, self.layer.fire_inhibition

        def above(mem):
            shift = (mem - layer.threshold).detach()
            for edge in (0,) if self.edge is None else (0, self.edge):
                self.margin = min(self.margin, (shift - edge).abs().min().item())
            return shift

        def watched_inhibition(batch, mem):
            first, second = above(mem).topk(2, dim=1).values.unbind(1)
            self.margin = min(self.margin, (first - second).min().item())
            return fire_inhibition(batch, mem)

        layer.fire = lambda mem: (above(mem), fire(mem))[1]
        layer.mem_reset = lambda mem: (above(mem), mem_reset(mem))[1]
        layer.fire_inhibition = watched_inhibition

    def reset(self) -> None:
        """Forget the states."""
        self.layer.reset_mem()
        self.states = ()

    def step(self, x):
        """x (B, ...) -> spikes; ``states`` are snnTorch's own, in its order."""
        spikes, *states = self.layer(x, *self.states)
        self.states = (spikes, *states) if self.recurrent else tuple(states)
        return spikes

    def detach(self) -> None:
        """Cut the graph between the steps so far and the next."""
        self.states = tuple(state.detach() for state in self.states)

    @property
    def membrane(self):
        """(B, ...)"""
        return self.states[-1]

    def ordered_states(self):
        """-> (S, B, ...) in spikeflow's order: the membrane last, but for spikes that are fed back."""
        return torch.stack((*self.states[1:], self.states[0]) if self.recurrent else self.states)


def run_neuron(
    case: dict, x: np.ndarray, numbers: dict, weights: dict, objective: Callable
) -> tuple[dict[str, np.ndarray], Unrolled]:
    """Run one neuron layer forward and backward.

    Parameters
    ----------
    case : dict
        ``neuron``, ``options``, ``spike_grad``: as for ``Unrolled``.
    x : (T, B, ...)
    numbers, weights : dict of str to array
    objective : callable
        (spikes, membrane), both (T, B, ...) -> what is differentiated, a number

    Returns
    -------
    dict
        ``loss``; ``spikes`` (T, B, ...); ``states`` (T, S, B, ...); ``grad/x`` and ``grad/NAME`` of every parameter.
    Unrolled
    """
    neuron = Unrolled(case["neuron"], case["options"], numbers, case["spike_grad"], weights)
    x = torch.from_numpy(x).clone().requires_grad_()
    spikes, membranes, states = [], [], []
    for current in x:
        spikes.append(neuron.step(current))
        membranes.append(neuron.membrane)
        states.append(neuron.ordered_states())
    loss = objective(torch.stack(spikes), torch.stack(membranes))
    loss.backward()
    result = {"loss": np.float64(loss.item()), "spikes": _stack(spikes), "states": _stack(states), "grad/x": x.grad.numpy()}
    result |= {
        f"grad/{name}": parameter.grad.numpy() for name, parameter in neuron.layer.named_parameters() if parameter.requires_grad
    }
    return result, neuron


def make_loss(specs: list[dict]) -> Callable:
    """[{"name", "options"}, ...] -> (spikes, membrane, targets) -> the sum of these losses, a number.

    Names are those of snntorch.functional; ``ce_membrane_loss`` is the loop that snnTorch's Tutorial 5 writes.
    """
    terms = [_term(spec["name"], spec["options"]) for spec in specs]
    return lambda spikes, membrane, targets: sum(term(spikes, membrane, targets) for term in terms)


def _term(name: str, options: dict) -> Callable:
    if name == "ce_membrane_loss":
        loss = nn.CrossEntropyLoss(**options)
        return lambda spikes, membrane, targets: sum(loss(step, targets) for step in membrane)
    if name == "l1_rate_sparsity":
        loss = SF.reg.l1_rate_sparsity(**options)
        return lambda spikes, membrane, targets: loss(spikes)
    loss = getattr(SF, name)(**options)
    if "membrane" in name:
        return lambda spikes, membrane, targets: loss(membrane, targets).sum()
    return lambda spikes, membrane, targets: loss(spikes, targets).sum()  # ce_rate_loss returns shape (1,)


# ---------------------------------------------------------------------------------------------------- small networks


def _unrolled(layer: dict) -> Unrolled:
    numbers = {name: np.array(value, np.float32) for name, value in layer["numbers"].items()}
    return Unrolled(layer["neuron"], layer["options"], numbers, layer["spike_grad"])


class SmallNetwork(nn.Module):
    """Linear - neuron - Linear - neuron; parameters are named as those of the same spikeflow.Sequential.

    ``layers`` are two dicts, as ``case`` of ``run_neuron`` with ``numbers`` as lists besides; ``weights`` by name.
    """

    def __init__(self, layers: list[dict], weights: dict[str, np.ndarray]):
        super().__init__()
        self.neurons = [_unrolled(layer) for layer in layers]
        for position, (linear, neuron) in enumerate(zip((0, 2), self.neurons, strict=True)):
            outputs, inputs = weights[f"{linear}.weight"].shape
            self.add_module(str(2 * position), nn.Linear(inputs, outputs))
            self.add_module(str(2 * position + 1), neuron.layer)
        if set(weights) != {name for name, _ in self.named_parameters()}:
            raise ValueError(f"weights {sorted(weights)} do not fit the network")
        self.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()}, strict=False)

    def forward(self, x, truncate: int | None = None):
        """x (T, B, F) -> spikes, membrane (T, B, C), and each layer's spikes a neuron and step."""
        spikes, membranes, rates = [], [], [0.0, 0.0]
        for neuron in self.neurons:
            neuron.reset()
        for t, current in enumerate(x):
            for position, neuron in enumerate(self.neurons):
                if truncate is not None and t and t % truncate == 0:
                    neuron.detach()
                current = neuron.step(self.get_submodule(str(2 * position))(current))
                rates[position] += current.detach().mean().item() / len(x)
            spikes.append(current)
            membranes.append(self.neurons[-1].membrane)
        return torch.stack(spikes), torch.stack(membranes), rates

    @property
    def margin(self) -> float:
        return min(neuron.margin for neuron in self.neurons)


# ---------------------------------------------------------------------------------------------------- requests


def record(source: str, target: str, num_steps: int, beta: float, only: list[str] | None = None) -> None:
    """Run the network with the weights, images and labels of the file ``source``; write results to the file ``target``.

    ``only`` names the results that are wanted, by the part before the slash.
    """
    arrays = _read(source)
    images, labels = arrays.pop("images"), arrays.pop("labels")
    result = run(csnn(arrays, beta), images, labels, num_steps)
    np.savez(target, **{key: value for key, value in result.items() if only is None or key.split("/")[0] in only})


def neuron(source: str, target: str, case: dict) -> dict:
    """Run one neuron layer, see ``run_neuron``, with ``dspikes`` and ``dmembrane`` given -> its ``rate`` and ``margin``.

    ``source`` holds these two, ``x``, ``number/NAME`` and ``weight/NAME``.
    """
    arrays = _read(source)
    dspikes, dmembrane = (torch.from_numpy(arrays[key]) for key in ("dspikes", "dmembrane"))

    def objective(spikes, membrane):
        return (spikes * dspikes).sum() + (membrane * dmembrane).sum()

    result, unrolled = run_neuron(case, arrays["x"], part(arrays, "number"), part(arrays, "weight"), objective)
    np.savez(target, **result)
    return {"rate": float((result["spikes"] != 0).mean()), "margin": unrolled.margin}


def network(
    source: str, target: str, layers: list[dict], loss: list[dict], steps: int = 1, lr: float = 0.0, truncate: int | None = None
) -> dict:
    """Train a ``SmallNetwork`` by SGD -> ``rates`` of the first step, the least ``margin`` of all.

    ``source`` holds ``x`` (T, B, F), ``targets`` and ``weight/NAME``; ``target`` receives ``losses`` (steps,), ``spikes``
    (T, B, C) and ``grad/NAME`` of the first step, ``weight/NAME`` after the last.
    """
    arrays = _read(source)
    net, loss_fn = SmallNetwork(layers, part(arrays, "weight")), make_loss(loss)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    x, result, losses = torch.from_numpy(arrays["x"]), {}, []
    for step in range(steps):
        spikes, membrane, rates = net(x, truncate)
        value = loss_fn(spikes, membrane, torch.from_numpy(arrays["targets"].copy()))
        optimizer.zero_grad()
        value.backward()
        losses.append(value.item())
        if step == 0:
            first = rates
            result["spikes"] = spikes.detach().numpy()
            result |= {f"grad/{name}": _gradient(parameter) for name, parameter in net.named_parameters()}
        optimizer.step()
    result["losses"] = np.array(losses)
    result |= {f"weight/{name}": parameter.detach().numpy() for name, parameter in net.named_parameters()}
    np.savez(target, **result)
    return {"rates": first, "margin": net.margin}


def _gradient(parameter) -> np.ndarray:
    """A copy: the next step changes it. Zeros for a parameter that no gradient reached."""
    return np.zeros(parameter.shape, np.float32) if parameter.grad is None else parameter.grad.numpy().copy()


def _read(source: str) -> dict[str, np.ndarray]:
    with np.load(source, allow_pickle=False) as file:
        return dict(file)


def part(arrays: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    """-> the entries "kind/NAME" by NAME."""
    return {key.partition("/")[2]: value for key, value in arrays.items() if key.startswith(f"{kind}/")}


def start(threads: int) -> dict:
    """Use this many threads from now on -> the environment."""
    torch.set_num_threads(threads)
    return harness.environment(threads)


# ---------------------------------------------------------------------------------------------------- faults


def faults() -> dict[str, str]:
    """Run what snnTorch gets wrong -> {case: what it gave}. parity_neurons.py has spikeflow's answer to each."""
    return {name: _given(function) for name, function in FAULTS.items()}


def _given(function: Callable) -> str:
    """-> what the function returns, or its error."""
    try:
        return function()
    except Exception as error:
        text = str(error).splitlines()[0]
        return f"{type(error).__name__}: {text if len(text) <= 50 else text[:47] + '...'}"


def _lapicque_decay(layer=None) -> str:
    layer = snn.Lapicque(beta=0.5, threshold=9.0) if layer is None else layer
    _, first = layer(torch.ones(1, 1))
    _, second = layer(torch.zeros(1, 1), first)
    return f"decays by {(second / first).item():.4f}"


def _lapicque_moved() -> str:
    layer = snn.Lapicque(beta=0.5, learn_beta=True, threshold=9.0)
    layer.beta.data.fill_(0.75)
    return _lapicque_decay(layer)


def _lapicque_twice() -> str:
    layer = snn.Lapicque(beta=0.5, learn_beta=True, threshold=9.0)
    for _ in range(2):
        layer.reset_mem()
        layer(torch.ones(1, 1))[1].sum().backward()
    return "no error"


def _alpha_learns() -> str:
    return str(snn.Alpha(alpha=0.8, beta=0.5, learn_alpha=True))


def _rsynaptic_at_once() -> str:
    layer = snn.RSynaptic(alpha=0.5, beta=0.5, V=0.5, all_to_all=False, reset_delay=False)
    return str(layer(torch.full((1, 1), 1.25)))


def _rsynaptic_forgets() -> str:
    layer = snn.RSynaptic(alpha=0.5, beta=0.5, V=0.5, all_to_all=False, init_hidden=True)
    layer(torch.full((1, 1), 1.25))
    snn.RSynaptic.reset_hidden()
    return f"spikes left after reset_hidden: {layer.spk.sum().item():g}"


def _state_dict() -> str:
    return ", ".join(key for key in snn.RLeaky(beta=0.5, V=0.5, all_to_all=False).state_dict() if "V" in key)


def _even_kernel() -> str:
    layer = snn.RLeaky(beta=0.5, conv2d_channels=1, kernel_size=2)
    return str(layer(torch.zeros(1, 1, 4, 4)))


def _other_shape() -> str:
    _, membrane = snn.Leaky(beta=0.5)(torch.zeros(3, 1), torch.full((2, 1), 0.5))
    return f"no error, membrane {membrane.flatten().tolist()}"


def _float64() -> str:
    spikes, membrane = snn.Leaky(beta=0.5)(torch.ones(1, 1, dtype=torch.float64))
    return f"membrane {membrane.dtype}, spikes {spikes.dtype}".replace("torch.", "")


def _graded_inhibition() -> str:
    spikes, _ = snn.Leaky(beta=0.5, inhibition=True, graded_spikes_factor=3.0)(torch.full((1, 2), 2.0))
    return f"the winner's spike is {spikes.max().item():g}"


def _image_inhibition() -> str:
    currents = (7 * torch.arange(24.0) % 11).reshape(2, 3, 2, 2) + 2
    spikes, _ = snn.Leaky(beta=0.5, inhibition=True)(currents)
    return f"{spikes[0].sum().item():g} of 12 neurons fire in a sample"


def _factors(function: Callable, *numbers: float) -> str:
    x = torch.tensor(numbers, requires_grad=True)
    function(x).sum().backward()
    return ", ".join(f"{factor:g}" for factor in x.grad.tolist())


RECORD, LABELS, WEIGHT = [[[1, 0], [1, 0], [0, 1]]] * 4, [0, 1, 1], [1, 3]  # (4, 3, 2), (3,), (2,)


def _loss_of(loss_fn) -> str:
    loss = loss_fn(torch.tensor(RECORD, dtype=torch.float32), torch.tensor(LABELS))
    return f"{loss.item():.6f}" if loss.numel() == 1 else f"shape {tuple(loss.shape)}"


def _weight() -> torch.Tensor:
    return torch.tensor(WEIGHT, dtype=torch.float32)


def _weighted_mean() -> str:
    counts = torch.tensor(RECORD, dtype=torch.float32).sum(0)
    right = nn.functional.cross_entropy(counts, torch.tensor(LABELS), _weight())
    return f"{_loss_of(SF.ce_count_loss(weight=_weight()))}; PyTorch's own {right.item():.6f}"


def _off_target() -> str:
    loss = SF.mse_membrane_loss(on_target=1, off_target=-0.5)(torch.tensor([[[1.0, -0.5]]]), torch.tensor([0]))
    return f"{loss.item():g} at the target itself"


def _late_target() -> str:
    loss = SF.mse_temporal_loss()(torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 1.0]]]), torch.tensor([0]))
    return f"{loss.item():.4f} at the target itself"


def _time_var_targets() -> str:
    return f"{SF.mse_membrane_loss(time_var_targets=True)(torch.ones(4, 3, 2), torch.zeros(4, 3, 2)).item():g}"


def _target_in_place() -> str:
    targets = torch.tensor([[-1.0, 0.0]])
    SF.mse_temporal_loss(target_is_time=True)(torch.ones(4, 1, 2), targets)
    return f"times [-1, 0] are {targets[0].tolist()} after the call"


def _multi_spike() -> str:
    record = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]], [[1.0, 1.0]], [[0.0, 0.0]], [[0.0, 0.0]]])
    times, _ = SpikeTime(target_is_time=True, multi_spike=True)(record, torch.zeros(2, 1, 2))
    return f"second spike at {times[1, 0, 0].item():g}"


FAULTS = {
    "Lapicque(beta=0.5)": _lapicque_decay,
    "Lapicque(learn_beta=True), beta moved to 0.75": _lapicque_moved,
    "Lapicque(learn_beta=True), 2nd backward": _lapicque_twice,
    "Alpha(learn_alpha=True)": _alpha_learns,
    "RSynaptic(reset_delay=False)": _rsynaptic_at_once,
    "RSynaptic.reset_hidden()": _rsynaptic_forgets,
    "RLeaky's V in the state dict": _state_dict,
    "RLeaky(kernel_size=2)": _even_kernel,
    "Leaky, a state of 2 samples for 3": _other_shape,
    "Leaky in float64": _float64,
    "Leaky, inhibition, graded_spikes_factor=3": _graded_inhibition,
    "Leaky, inhibition of images": _image_inhibition,
    "triangular() at -1/2, 1/2": lambda: _factors(surrogate.triangular(), -0.5, 0.5),
    "LSO() at -1/2, 1/2": lambda: _factors(surrogate.LSO(), -0.5, 0.5),
    "sigmoid() at -3.5, -4": lambda: _factors(surrogate.sigmoid(), -3.5, -4),
    "ce_rate_loss, population code": lambda: _loss_of(SF.ce_rate_loss(population_code=True, num_classes=2)),
    "ce_count_loss, class weights": _weighted_mean,
    "ce_count_loss, class weights, sum": lambda: _loss_of(SF.ce_count_loss(weight=_weight(), reduction="sum")),
    "mse_count_loss, class weights": lambda: _loss_of(SF.mse_count_loss(weight=_weight())),
    "mse_membrane_loss(off_target=-0.5)": _off_target,
    "mse_membrane_loss(time_var_targets=True)": _time_var_targets,
    "mse_temporal_loss(), off_target -1": _late_target,
    "mse_temporal_loss(target_is_time=True)": _target_in_place,
    "mse_temporal_loss(multi_spike=True)": _multi_spike,
}


if __name__ == "__main__":
    harness.serve(start, record, neuron, network, faults)
