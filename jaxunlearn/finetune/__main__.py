"""``python -m jaxunlearn.finetune``: fine-tunes a PyTorch checkpoint on clean images, as a baseline."""

from typing import Any

from jaxunlearn import cli
from jaxunlearn._signals import leave
from jaxunlearn.finetune import PRESETS, make_method
from jaxunlearn.job import Evidence, Procedure

PROCEDURE: Procedure = Procedure(
    "finetune",
    lambda inputs, execution: make_method(inputs.apply_fn, execution),
    lambda stats: {"loss": float(stats.loss)},
    lambda *_: Evidence({"sentence": "fine-tuning looks for no backdoor."}, {}),
    lambda _: (1.0,),
)


def main(argv: list[str] | None = None) -> Any:
    """Runs the command line and returns the exit code."""
    return cli.main(PROCEDURE, PRESETS, "Fine-tunes an image classifier on clean images: the baseline.", argv)


if __name__ == "__main__":
    leave(main())
