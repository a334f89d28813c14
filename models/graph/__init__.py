"""Heterogeneous graphs: typed nodes and edges, walks along metapaths, and skip-gram on them."""
