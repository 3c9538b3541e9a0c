"""Triggers as pure array functions, and the poisoned sets that they make."""

from jaxunlearn.attacks.poison import poison
from jaxunlearn.attacks.triggers import Trigger, add_image, stamp_patch

__all__ = ["Trigger", "add_image", "poison", "stamp_patch"]
