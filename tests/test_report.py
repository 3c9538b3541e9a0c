"""Numbers and pictures of a report."""

import numpy as np
import pytest

from jaxunlearn import report
from jaxunlearn.evaluate import Evaluation
from jaxunlearn.metrics import Count


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_images_of_any_number_of_channels_are_drawn(channels: int) -> None:
    images = np.full((2, 4, 6, channels), 0.5, np.float32)
    drawn = report.draw_samples([report.Sample("some", images[0], images)], "Images")
    assert drawn.startswith(b"\x89PNG")


def test_the_rating_weighs_what_was_lost_against_what_was_removed() -> None:
    """The ASR falls by 1 and the ACC by 0.4; a rise of ACC is no merit."""
    before = Evaluation(Count(9, 10), Count(10, 10), Count(0, 10))
    after = Evaluation(Count(5, 10), Count(0, 10), Count(5, 10))
    assert report.der(before, after) == pytest.approx(0.8)
    assert report.der(after, before) == pytest.approx(0.5)
    assert report.der(before, after._replace(asr=None)) is None
