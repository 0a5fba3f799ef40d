"""Poses, frames, anchors, scene graph and localisation. Pure: no asyncio, Ray, sockets, database or wall clock; time and chance are arguments."""
