"""Pictures and animations, as Matplotlib objects.

Every function draws into the axes or the figure that it is given, or into a new one. Nothing here touches pyplot's global state:
a new figure is the caller's alone, none is left open. Save it with ``figure.savefig``, let it be a notebook cell's last
value (of axes, ``ax.figure``), or, for a window, pass the axes of ``plt.subplots()`` and call ``plt.show()``.
"""

from .activity import firing_rates, raster, traces
from .learning import confusion_matrix, gradient_flow, surrogates, training_curves
from .maps import encoder, feature_maps, filters
from .movies import animator, save_animation, spike_count

__all__ = [
    "animator",
    "confusion_matrix",
    "encoder",
    "feature_maps",
    "filters",
    "firing_rates",
    "gradient_flow",
    "raster",
    "save_animation",
    "spike_count",
    "surrogates",
    "traces",
    "training_curves",
]
