"""Poses, anchors, scene graph and localisation (pure). Nothing is here yet: see the issue AR."""
