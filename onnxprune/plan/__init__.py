"""Plans: what to remove or to zero, as plain data."""

from __future__ import annotations
