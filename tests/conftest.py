"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("esplanade", deadline=None)  # timings never decide a test: on a busy machine any example may be slow
settings.load_profile("esplanade")
