"""Checks that every defense and every attack has to pass, also those of other packages.

    from tffl.testing import check_attack, check_defense

    def test_my_defense():
        check_defense(MyDefense(), name="my-defense")

They need no test framework: a failure is an `AssertionError` of one line that begins with the name
of the check. `small_federation` makes clients with images, for tests of attacks on data.
"""

from tffl.testing.attack import check_attack
from tffl.testing.defense import check_defense
from tffl.testing.fixtures import small_federation

__all__ = ["check_attack", "check_defense", "small_federation"]
