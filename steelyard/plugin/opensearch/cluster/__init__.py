"""Queries encoded inside the cluster: a pack as ML Commons models, by an index's own default.

``install`` puts a pack's two models and its search pipeline into a cluster, ``attach`` gives a
generation the pipeline of its pack before the alias moves, ``uninstall`` takes everything out.
"""
