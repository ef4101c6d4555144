"""Checks that every defense and every attack has to pass, also those of other packages.

    from tffl.testing import check_attack, check_defense

    def test_my_defense():
        check_defense(MyDefense(), name="my-defense")

They need no test framework: what fails is an `AssertionError` of one line that begins with the
name of the check.
"""

from tffl.testing.attack import check_attack
from tffl.testing.defense import check_defense

__all__ = ["check_attack", "check_defense"]
