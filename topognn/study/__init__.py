"""What topology says about accuracy: tables of networks, their analysis, and the sweeps that make such tables.

Needs the extra ``study``: ``pip install "topognn[study]"``.
"""
