"""``python -m spikeflow`` is the command ``spikeflow``."""

import sys

from .cli import main

sys.exit(main())
