"""Named settings of SAU.

``reference``: the official configuration, the same for all its data sets but for the number of rounds.
"""

from jaxunlearn.sau.config import Config

PRESETS: dict[str, Config] = {
    "reference": Config(),
}
