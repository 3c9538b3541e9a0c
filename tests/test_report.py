"""Pictures of a report."""

import numpy as np
import pytest

from jaxunlearn import report


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_images_of_any_number_of_channels_are_drawn(channels: int) -> None:
    images = np.full((2, 4, 6, channels), 0.5, np.float32)
    drawn = report.draw_samples([report.Sample("some", images[0], images)], "Images")
    assert drawn.startswith(b"\x89PNG")
