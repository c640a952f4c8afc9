"""How far a change of the hyperparameters may go."""

import msgspec

from flead.contracts.messages import Hyperparameters
from flead.settings import TuningBounds


def clip(hyperparameters: Hyperparameters, bounds: TuningBounds) -> Hyperparameters:
    """Move each hyperparameter that is tuned into its bounds."""
    return msgspec.structs.replace(
        hyperparameters,
        **{
            name: min(max(getattr(hyperparameters, name), low), high)
            for name, (low, high) in msgspec.structs.asdict(bounds).items()
        },
    )


def factor(before: Hyperparameters, after: Hyperparameters) -> float:
    """Return by which factor, at least 1, a change moves what drives how fast devices learn.

    That is the largest over the learning rate, the rows of a window, and the passes over them. The
    penalty and the pull act more mildly: their bounds are enough.
    """
    ratios = (
        after.learning_rate / before.learning_rate,
        after.window_rows / before.window_rows,
        after.local_epochs / before.local_epochs,
    )
    return max(max(ratio, 1.0 / ratio) for ratio in ratios)
