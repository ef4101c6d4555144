"""Every attack and every defense with one, two or three clients, of whom all or none attack.

What cannot work so is refused in one line; what is not refused does its work.
"""

from __future__ import annotations
