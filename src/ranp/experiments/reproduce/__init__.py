"""The resource tables of Xu et al., RANP, 3DV 2020, recomputed: the paper's own counting and selection."""
